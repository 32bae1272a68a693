// What a batch or a decode step looks like, worked out once on the host and copied to the device once: no
// kernel uploads anything or waits for anything inside a layer.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_store.h"
#include "kernels/upload.h"

namespace troupe::kernels {

// A run of rows of the packed batch that continues its parent's: parents before children, rows in order.
struct TreeNode {
  int64_t start = 0, length = 0;
  int64_t parent = -1;  // index of an earlier node, or -1
};

// A rectangle of tree attention: rows of one level of the trees against keys of the same level (causal: every
// node's own) or of a level above (whole: every row sees all of its ancestor). Rows are numbered breadth
// first. Segment s has the queries [queries[s], queries[s + 1]) and the keys [keys[s], keys[s + 1]), counted
// from query_begin and key_begin: cu_seqlens of the varlen flash-attention calls. A node without descendants
// on the level is a segment without queries.
struct TreeCall {
  bool causal = false;
  int64_t query_begin = 0, query_rows = 0, key_begin = 0, key_rows = 0;
  int64_t longest_query = 0, longest_key = 0;
  std::vector<int32_t> queries, keys;      // on the host
  at::Tensor device_queries, device_keys;  // int32, on the device
};

// A packed batch's trees. A backend may want its rows breadth first (all roots, their children, …, trees in
// the batch's order): `order` leads there and `place` back, unless the rows lie so already (`in_order`). The first
// call is the causal one over all rows; the others merge into it by logsumexp.
struct TreePlan {
  // Checks the nodes: parents before children, every row in one node. Nodes without rows are left out.
  TreePlan(std::span<const TreeNode> nodes, std::span<const int64_t> tokens,
           std::span<const int64_t> positions);

  int64_t rows = 0;
  int64_t positions_end = 0;    // one more than the largest position
  bool in_order = true;         // every row's breadth-first place is its own in the batch
  std::vector<TreeNode> nodes;  // in the batch's order
  std::vector<TreeCall> calls;
  std::vector<int64_t> host_tokens, host_order, host_place;
  std::vector<int32_t> host_positions;
  at::Tensor tokens;     // [T] int64
  at::Tensor positions;  // [T] int32, from the root, in the batch's order
  at::Tensor order;      // [T] int64: the batch's row at each breadth-first place
  at::Tensor place;      // [T] int64: the breadth-first place of each of the batch's rows

  // The plan must stay where it is until the upload is sent.
  void add_to(Upload& upload);
};

// Loss entries sorted by row: entry e is the prediction of targets[e] at row rows[e], at temperature
// temperatures[e].
struct LossEntries {
  // rows ascending within [0, row_count), targets within [0, vocabulary), temperatures above 0: checked.
  LossEntries(std::span<const int64_t> rows, std::span<const int64_t> targets,
              std::span<const double> temperatures, int64_t row_count, int64_t vocabulary);

  int64_t count = 0;
  at::Tensor rows, targets;  // [E] int64
  at::Tensor temperatures;   // [E] fp64
  std::vector<int64_t> host_rows, host_targets;
  std::vector<double> host_temperatures;
  // Neighbours of one row and one temperature are one line of the output projection: line i is row
  // line_rows[i] at temperature line_temperatures[i] and has the entries [lines[i], lines[i + 1]).
  std::vector<int64_t> line_rows, lines;
  std::vector<double> line_temperatures;

  // Offsets into the entries (the lines) at which the groups of rows begin and end.
  std::vector<int64_t> entry_offsets(std::span<const int64_t> groups) const;
  std::vector<int64_t> line_offsets(std::span<const int64_t> groups) const;
  // The entries must stay where they are until the upload is sent.
  void add_to(Upload& upload);
};

// How one token is drawn.
struct Sampling {
  double temperature = 1;  // 0: greedy
  int64_t top_k = 0;       // 0: off
  double top_p = 1;        // 1: off
  double min_p = 0;        // 0: off
};

// One step of the rollout engine: T rows (prompt and decode tokens mixed) and the D tokens to be drawn.
// Filled on the host by the scheduler; send() brings everything to the device in one copy.
struct RowPlan {
  // Host side.
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> positions;  // [T]: the row attends to positions 0 … its own
  // [T]: page · 16 + place where keys and values go; −1: they are there already.
  std::vector<int32_t> slots;
  std::vector<int32_t> tables;  // [T]: which page table the row reads; rows of one node share one
  std::vector<int32_t> pages;   // [tables, table_width]: page numbers by position / 16; −1 behind the last
  int64_t table_width = 0;
  std::vector<int32_t> outputs;  // [O]: rows whose final hidden state is wanted
  // [D]: which output each draw reads, ascending; samples of one prompt share it.
  std::vector<int32_t> draws;
  std::vector<Sampling> sampling;  // [D]
  std::vector<double> uniforms;  // [D] in [0, 1): Philox of (seed, call, token number), see rollout/philox.h
  std::vector<int32_t> extra;    // a backend's own work items, see Kernels::plan_rows
  // What the backend's launches depend on beside the lengths of the arrays: stays on the host.
  std::vector<int32_t> launch;
  // plan_work rounds the lengths of `extra` up, so that steps of about the same size launch the same
  // (Kernels::record), or clears this: they would not.
  bool repeatable = false;
  int64_t query_group = 1;  // query heads of one KV head, for those work items

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t draw_count() const { return static_cast<int64_t>(draws.size()); }

  // One copy, after Kernels::plan_work; into `buffer` where it is defined, of a plan with the same lengths.
  void send(const at::Device& device, const at::Tensor& buffer = {});

  // The host side once more on the device, views of one buffer.
  struct Device {
    at::Tensor tokens, positions, slots, tables;  // [T] int32
    at::Tensor pages;                             // [tables, table_width] int32
    at::Tensor outputs, draws;                    // [O], [D] int32
    at::Tensor temperatures, top_ps, min_ps;      // [D] fp64
    at::Tensor top_ks;                            // [D] int32
    at::Tensor uniforms;                          // [D] fp64
    at::Tensor extra;                             // int32
    at::Tensor buffer;                            // bytes: all of them
  } device;
};

}  // namespace troupe::kernels
