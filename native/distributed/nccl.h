// What is NCCL's among the ranks, beside the process group itself (cuda/nccl.cc).
#pragma once

#include <string>

namespace troupe::distributed {

// Why NCCL cannot be used here, a sentence; "" where it can.
std::string nccl_problem();
// Throws GroupError where it cannot.
void check_nccl();

// What NCCL says went wrong, in a line.
std::string nccl_reason(const std::string& what);

// From now on, where an exception that nobody catches (in a thread of NCCL's or c10d's) ends the process, standard error
// says that this rank was at `collective`, and what it was.
void name_in_last_words(int rank, const std::string& collective);

}  // namespace troupe::distributed
