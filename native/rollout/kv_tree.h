// The KV cache as prefix trees: one tree per version of one policy's parameters and scale of its adapter. A node is a
// run of tokens, its children continue it, a leaf is where a sequence stands. What no sequence uses any more stays until
// memory is short, then the least recently used nodes go first, children before parents.
//
// A node of known tokens can be matched before its keys are computed: a second request with the same prompt
// joins a prefill that is under way. Which tokens are computed when is the scheduler's business.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/policy.h"
#include "rollout/kv_pages.h"

namespace troupe::rollout {

struct KvNode {
  KvNode* parent = nullptr;
  int64_t id = 0;     // in order of creation
  int64_t begin = 0;  // absolute position of tokens[0]
  std::vector<int32_t> tokens;
  int64_t computed = 0;  // tokens whose keys and values are stored, from the front
  // Pages from position begin / 16 on. The first one also holds the positions before `begin` that lie on it.
  std::vector<std::shared_ptr<KvPage>> pages;
  std::vector<std::unique_ptr<KvNode>> children;
  int64_t references = 0;  // sequences that stand here
  bool growing = false;    // one sequence appends its samples: not to be matched
  bool evictable = false;  // complete, without children, nobody stands here
  uint64_t last_used = 0;  // time of the last release on or below this node
  // The scheduler's plan for the current step: tokens computed when it ends, valid where `plan` is its
  // number.
  int64_t planned = 0;
  uint64_t plan = 0;
  uint64_t mark = 0;  // visited by the walk of this number

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t end() const { return begin + size(); }
  bool complete() const { return computed == size(); }
  int64_t first_page() const { return begin / kPageTokens; }
  // Pages that hold all of its tokens.
  int64_t page_count(int64_t token_count) const;
};

struct KvMatch {
  KvNode* leaf = nullptr;
  int64_t cached = 0;  // tokens that were there
};

class KvCache {
 public:
  KvCache(const KvShape& shape, const CacheBudget& budget);
  ~KvCache();

  PagePool& pool() { return pool_; }
  const PagePool& pool() const { return pool_; }
  // Root of the tree of this policy's parameters at their present version.
  KvNode* root(const Policy& policy);
  // Finds the longest known prefix of `tokens` and adds a node for the rest; the caller stands on the leaf.
  KvMatch acquire(KvNode* root, std::span<const int32_t> tokens);
  // A new, growing child of a leaf that the caller stands on; the caller moves there.
  KvNode* grow(KvNode* leaf);
  // The caller leaves. Tokens that were never computed are forgotten.
  void release(KvNode* leaf);

  // Makes pages for the node's first `count` tokens, evicting where needed. False: memory is full of pages in use.
  bool prepare(KvNode* node, int64_t count);
  // Pages that these leaves' paths hold, plus those that their known tokens will need.
  int64_t pages_in_use(std::span<KvNode* const> leaves);
  // Page numbers of the path to this node, by absolute page index; −1 where there is none yet.
  static std::vector<int32_t> page_table(const KvNode* node);

  // Frees the pages that no sequence uses: of trees whose version no policy holds any more, or of all trees.
  void clear(bool everything);

 private:
  struct Tree {
    std::weak_ptr<ParameterSet> trained, base;
    double scale = 0;  // of the adapter
    int64_t version = 0, base_version = 0;
    std::unique_ptr<KvNode> root;
    bool stale() const;
  };
  KvNode* add_child(KvNode* parent, std::span<const int32_t> tokens);
  void split(KvNode* node, int64_t offset);
  void retain(KvNode* node);
  void settle(KvNode* node);
  void remove(KvNode* node);
  bool evict_one();
  std::shared_ptr<KvPage> allocate();
  static bool duplicate(const KvNode* node);

  PagePool pool_;
  std::vector<Tree> trees_;
  std::map<std::pair<uint64_t, int64_t>, KvNode*> evictable_;  // by last use, then id
  uint64_t clock_ = 0, walks_ = 0;
  int64_t nodes_ = 0;
};

}  // namespace troupe::rollout
