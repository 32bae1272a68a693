"""The kernels of a decode layer in a trace (trace.cc), in their order.

    python3 bench/gpu/trace/layer.py TRACE

A layer begins with each attention (tile_kernel) and is as the most of them are. Microseconds, medians over the layers: from a
kernel's begin to the next one's, and to its own end.
"""

import collections
import re
import statistics
import sys


def short(name):
    own = re.search(r"\d([a-z_]+_kernel)", name)
    return own.group(1) if own else name[:60]


def kernels(path):
    with open(path) as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [(int(begin), int(end), blocks, short(name)) for begin, end, blocks, name in rows]


def layers(trace):
    """Of the usual kind, each with the begin of what follows it."""
    begins = [i for i, kernel in enumerate(trace) if kernel[3] == "tile_kernel"]
    found = [trace[begin : end + 1] for begin, end in zip(begins, begins[1:])]
    names = collections.Counter(tuple(kernel[3] for kernel in layer) for layer in found)
    if not names:
        raise SystemExit("no two kernels of attention in the trace: it is for decoding")
    usual = names.most_common(1)[0][0]
    return [layer for layer in found if tuple(kernel[3] for kernel in layer) == usual]


def main():
    found = layers(kernels(sys.argv[1]))
    whole = 0
    print(f"{len(found)} layers\n  to next  to end  blocks        kernel")
    for i in range(len(found[0]) - 1):
        to_next = statistics.median((layer[i + 1][0] - layer[i][0]) / 1e3 for layer in found)
        to_end = statistics.median((layer[i][1] - layer[i][0]) / 1e3 for layer in found)
        whole += to_next
        print(f"{to_next:9.2f} {to_end:7.2f}  {found[0][i][2]:12s}  {found[0][i][3]}")
    print(f"{whole:9.2f} together")


main()
