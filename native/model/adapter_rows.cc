#include "model/adapter_rows.h"

namespace troupe {

int64_t AdapterRows::place(const std::shared_ptr<ParameterSet>& adapter, int64_t ranks) {
  std::erase_if(places_, [](const Place& place) { return place.adapter.expired(); });
  for (const Place& place : places_) {
    if (place.adapter.lock() == adapter) return place.begin;
  }
  int64_t begin = 0;
  auto next = places_.begin();
  for (; next != places_.end() && next->begin - begin < padded(ranks); ++next) begin = next->end;
  if (begin + padded(ranks) > ranks_) return -1;
  places_.insert(next, {adapter, begin, begin + padded(ranks)});
  return begin;
}

}  // namespace troupe
