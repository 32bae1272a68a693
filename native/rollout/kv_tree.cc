#include "rollout/kv_tree.h"

#include <algorithm>

namespace troupe::rollout {

namespace {

int64_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<int64_t>(n), b.begin()).first - a.begin();
}

}  // namespace

int64_t KvNode::page_count(int64_t token_count) const {
  return token_count == 0 ? 0 : (begin + token_count - 1) / kPageTokens - first_page() + 1;
}

KvCache::KvCache(const KvShape& shape, const CacheBudget& budget) : pool_(shape, budget) {}

KvCache::~KvCache() = default;

bool KvCache::Tree::stale() const {
  const auto t = trained.lock(), b = base.lock();
  return !t || !b || t->version() != version || b->version() != base_version;
}

KvNode* KvCache::root(const Policy& policy) {
  const auto& trained = policy.adapter() ? policy.adapter() : policy.base();
  for (auto& tree : trees_) {
    if (!tree.stale() && tree.trained.lock() == trained && tree.base.lock() == policy.base() &&
        tree.scale == policy.adapter_scale())
      return tree.root.get();
  }
  auto root = std::make_unique<KvNode>();
  root->id = ++nodes_;
  root->references = 1;  // the tree's own: a root is never evicted
  trees_.push_back({trained, policy.base(), policy.adapter_scale(), trained->version(),
                    policy.base()->version(), std::move(root)});
  return trees_.back().root.get();
}

KvMatch KvCache::acquire(KvNode* root, std::span<const int32_t> tokens) {
  KvNode* node = root;
  int64_t known = 0;
  while (known < static_cast<int64_t>(tokens.size())) {
    const auto rest = tokens.subspan(known);
    KvNode* next = nullptr;
    int64_t length = 0;
    // Samples that began alike lie side by side, so the longest match wins, not the first.
    for (const auto& child : node->children) {
      const int64_t match = child->growing ? 0 : common_prefix(child->tokens, rest);
      if (match > length) {
        next = child.get();
        length = match;
      }
    }
    if (!next) break;
    if (length < next->size()) {
      split(next, length);
      next = next->parent;
    }
    node = next;
    known += length;
  }
  if (known < static_cast<int64_t>(tokens.size())) node = add_child(node, tokens.subspan(known));
  retain(node);
  return {node, known};
}

KvNode* KvCache::grow(KvNode* leaf) {
  KvNode* child = add_child(leaf, {});
  child->growing = true;
  retain(child);
  --leaf->references;  // has a child now: not evictable, nothing to settle
  return child;
}

KvNode* KvCache::add_child(KvNode* parent, std::span<const int32_t> tokens) {
  retain(parent);
  --parent->references;  // only out of the order of eviction: the child keeps it
  auto child = std::make_unique<KvNode>();
  child->parent = parent;
  child->id = ++nodes_;
  child->begin = parent->end();
  child->tokens.assign(tokens.begin(), tokens.end());
  parent->children.push_back(std::move(child));
  return parent->children.back().get();
}

// The front of `node` becomes a new node between it and its parent; `node` stays valid for those who stand on
// it.
void KvCache::split(KvNode* node, int64_t offset) {
  KvNode* parent = node->parent;
  auto slot = std::find_if(parent->children.begin(), parent->children.end(),
                           [&](const auto& child) { return child.get() == node; });
  auto front = std::make_unique<KvNode>();
  front->parent = parent;
  front->id = ++nodes_;
  front->begin = node->begin;
  front->tokens.assign(node->tokens.begin(), node->tokens.begin() + offset);
  front->last_used = node->last_used;
  front->computed = std::min(node->computed, offset);
  front->pages.assign(node->pages.begin(), node->pages.begin() + front->page_count(front->computed));

  // A page that both parts need is shared: neither writes to it again, since the front is complete and the
  // back, if it has any computed token, already holds the page's last slots or writes only behind them.
  const int64_t old_first = node->first_page();
  node->tokens.erase(node->tokens.begin(), node->tokens.begin() + offset);
  node->begin += offset;
  node->computed = std::max<int64_t>(0, node->computed - offset);
  node->parent = front.get();
  if (node->computed == 0) {
    node->pages.clear();
  } else {
    node->pages.erase(node->pages.begin(), node->pages.begin() + (node->first_page() - old_first));
  }
  front->children.push_back(std::move(*slot));
  *slot = std::move(front);
}

void KvCache::retain(KvNode* node) {
  ++node->references;
  if (node->evictable) {
    evictable_.erase({node->last_used, node->id});
    node->evictable = false;
  }
}

void KvCache::release(KvNode* leaf) {
  --leaf->references;
  leaf->growing = false;
  ++clock_;
  for (KvNode* node = leaf; node; node = node->parent) {
    if (!node->evictable) node->last_used = clock_;
  }
  settle(leaf);
}

// A node that nobody needs any more joins the order of eviction, or goes at once if it holds nothing new.
void KvCache::settle(KvNode* node) {
  if (node->references > 0 || !node->children.empty() || node->evictable) return;
  node->tokens.resize(node->computed);
  node->pages.resize(node->page_count(node->computed));
  if (node->computed == 0 || duplicate(node)) {
    remove(node);
    return;
  }
  node->evictable = true;
  evictable_.emplace(std::pair{node->last_used, node->id}, node);
}

bool KvCache::duplicate(const KvNode* node) {
  return std::any_of(node->parent->children.begin(), node->parent->children.end(), [&](const auto& other) {
    return other.get() != node && !other->growing && other->computed >= node->size() &&
           common_prefix(other->tokens, node->tokens) == node->size();
  });
}

void KvCache::remove(KvNode* node) {
  KvNode* parent = node->parent;
  if (node->evictable) evictable_.erase({node->last_used, node->id});
  std::erase_if(parent->children, [&](const auto& child) { return child.get() == node; });
  settle(parent);
}

bool KvCache::evict_one() {
  if (evictable_.empty()) return false;
  remove(evictable_.begin()->second);
  return true;
}

std::shared_ptr<KvPage> KvCache::allocate() {
  for (;;) {
    if (auto page = pool_.allocate()) return page;
    if (!evict_one()) return nullptr;
  }
}

bool KvCache::prepare(KvNode* node, int64_t count) {
  const int64_t needed = node->page_count(count);
  while (static_cast<int64_t>(node->pages.size()) < needed) {
    auto page = allocate();
    if (!page) return false;
    node->pages.push_back(std::move(page));
  }
  return true;
}

int64_t KvCache::pages_in_use(std::span<KvNode* const> leaves) {
  const uint64_t walk = ++walks_;
  int64_t pages = 0;
  for (KvNode* leaf : leaves) {
    for (KvNode* node = leaf; node && node->mark != walk; node = node->parent) {
      node->mark = walk;
      pages += node->page_count(node->size());
    }
  }
  return pages;
}

std::vector<int32_t> KvCache::page_table(const KvNode* node) {
  std::vector<int32_t> table((node->end() + kPageTokens - 1) / kPageTokens, -1);
  // From the leaf up: the deepest node that holds a page knows most of it.
  for (; node; node = node->parent) {
    for (size_t i = 0; i < node->pages.size(); ++i) {
      auto& entry = table[node->first_page() + static_cast<int64_t>(i)];
      if (entry < 0) entry = node->pages[i]->number;
    }
  }
  return table;
}

void KvCache::clear(bool everything) {
  const auto stale = [&](const Tree& tree) { return everything || tree.stale(); };
  const auto in_stale_tree = [&](const auto& entry) {
    const KvNode* top = entry.second;
    while (top->parent) top = top->parent;
    return stale(
        *std::find_if(trees_.begin(), trees_.end(), [&](const Tree& t) { return t.root.get() == top; }));
  };
  // Removing a leaf may make its parent the next one.
  for (;;) {
    const auto found =
        everything ? evictable_.begin() : std::find_if(evictable_.begin(), evictable_.end(), in_stale_tree);
    if (found == evictable_.end()) break;
    remove(found->second);
  }
  std::erase_if(trees_, [&](const Tree& tree) { return tree.root->children.empty() && stale(tree); });
}

}  // namespace troupe::rollout
