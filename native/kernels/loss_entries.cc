#include <algorithm>

#include "kernels/plans.h"

namespace troupe::kernels {
namespace {

std::vector<int64_t> offsets(const std::vector<int64_t>& ascending, std::span<const int64_t> groups) {
  std::vector<int64_t> result;
  for (const int64_t row : groups) {
    result.push_back(std::lower_bound(ascending.begin(), ascending.end(), row) - ascending.begin());
  }
  return result;
}

}  // namespace

LossEntries::LossEntries(std::span<const int64_t> entry_rows, std::span<const int64_t> entry_targets,
                         std::span<const double> entry_temperatures, int64_t row_count, int64_t vocabulary)
    : count(static_cast<int64_t>(entry_rows.size())),
      host_rows(entry_rows.begin(), entry_rows.end()),
      host_targets(entry_targets.begin(), entry_targets.end()),
      host_temperatures(entry_temperatures.begin(), entry_temperatures.end()) {
  TORCH_CHECK(entry_targets.size() == entry_rows.size() && entry_temperatures.size() == entry_rows.size(),
              "rows, targets and temperatures must be of one length, got ", count, ", ", entry_targets.size(),
              " and ", entry_temperatures.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = host_rows[i], target = host_targets[i];
    const double temperature = host_temperatures[i];
    TORCH_CHECK(row >= 0 && row < row_count, "entry ", i, ": row ", row, " of ", row_count);
    TORCH_CHECK(target >= 0 && target < vocabulary, "entry ", i, ": token id ", target,
                " lies outside the vocabulary of ", vocabulary, " tokens");
    TORCH_CHECK(temperature > 0, "entry ", i, ": the temperature of log-probabilities must be above 0, not ",
                temperature);
    TORCH_CHECK(i == 0 || row >= host_rows[i - 1], "rows must ascend: ", row, " after ", host_rows[i - 1]);
    if (i == 0 || row != host_rows[i - 1] || temperature != host_temperatures[i - 1]) {
      line_rows.push_back(row);
      lines.push_back(i);
      line_temperatures.push_back(temperature);
    }
  }
  lines.push_back(count);
}

std::vector<int64_t> LossEntries::entry_offsets(std::span<const int64_t> groups) const {
  return offsets(host_rows, groups);
}

std::vector<int64_t> LossEntries::line_offsets(std::span<const int64_t> groups) const {
  return offsets(line_rows, groups);
}

void LossEntries::add_to(Upload& upload) {
  upload.add(host_rows, rows);
  upload.add(host_targets, targets);
  upload.add(host_temperatures, temperatures);
}

}  // namespace troupe::kernels
