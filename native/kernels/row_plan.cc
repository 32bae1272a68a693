#include "kernels/plans.h"

namespace troupe::kernels {

void RowPlan::send(const at::Device& where, const at::Tensor& buffer) {
  std::vector<double> temperatures, top_ps, min_ps;
  std::vector<int32_t> top_ks;
  for (const Sampling& one : sampling) {
    temperatures.push_back(one.temperature);
    top_ps.push_back(one.top_p);
    min_ps.push_back(one.min_p);
    top_ks.push_back(static_cast<int32_t>(std::min<int64_t>(one.top_k, INT32_MAX)));
  }
  Upload upload;
  upload.add(tokens, device.tokens);
  upload.add(positions, device.positions);
  upload.add(slots, device.slots);
  upload.add(tables, device.tables);
  upload.add(pages, device.pages);
  upload.add(outputs, device.outputs);
  upload.add(draws, device.draws);
  upload.add(temperatures, device.temperatures);
  upload.add(top_ps, device.top_ps);
  upload.add(min_ps, device.min_ps);
  upload.add(top_ks, device.top_ks);
  upload.add(uniforms, device.uniforms);
  upload.add(extra, device.extra);
  device.buffer = upload.send(where, buffer);
  device.pages = device.pages.view({-1, std::max<int64_t>(table_width, 1)});
}

}  // namespace troupe::kernels
