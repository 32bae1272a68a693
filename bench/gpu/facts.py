"""Facts of a GPU and its torch that the CUDA path relies on, one JSON object a line as each is known (docs/cuda.md).

    python3 bench/gpu/facts.py [--out FILE]

Everything is compared with fp64, and memory is filled with NaN before each call of flash attention, so that what a
call leaves unwritten shows.
"""

import argparse
import json
import math
import os
import time
import traceback

import torch

D = "cuda"
forward_call = torch.ops.aten._flash_attention_forward
backward_call = torch.ops.aten._flash_attention_backward
arguments = argparse.ArgumentParser()
arguments.add_argument("--out")
out = arguments.parse_args().out


def say(name, **values):
    line = json.dumps({"name": name, **values}, default=str)
    print(line, flush=True)
    if out:
        with open(out, "a") as file:
            file.write(line + "\n")


def milliseconds(work, count=10):
    """Median of single calls, by the device's events."""
    work(), work()
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)
    times = []
    for _ in range(count):
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[count // 2]


def replayed(work, count=20):
    """Milliseconds of the work alone: replayed from a graph, so that no launch is waited for."""
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            work()
    return milliseconds(graph.replay, 5) / count


def error(actual, wanted):
    wanted = wanted.double()
    return float((actual.double().to(wanted.device) - wanted).norm() / wanted.norm())


def poison():
    """NaN in the memory that the next tensors get, small ones too."""
    large = torch.full((1 << 29,), math.nan, device=D)
    small = [torch.full((1 << power,), math.nan, device=D) for power in range(6, 18) for _ in range(16)]
    del large, small


def random(*shape):
    return torch.randn(*shape, device=D, dtype=torch.bfloat16)


def ends(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=D)


def flash(q, k, v, queries, keys, longest_query, longest_key, causal):
    return forward_call(q, k, v, queries, keys, longest_query, longest_key, 0.0, causal, False)


def environment():
    device = torch.cuda.get_device_properties(0)
    say("environment", torch=torch.__version__, gpu=device.name, multiprocessors=device.multi_processor_count,
        memory=device.total_memory, l2=device.L2_cache_size, cores=os.cpu_count())
    say("signatures", forward=str(forward_call.default._schema), backward=str(backward_call.default._schema))


def logsumexp_layout():
    lengths, heads, kv_heads, dim = [7, 5, 12], 4, 2, 64
    rows = sum(lengths)
    q, k, v = random(rows, heads, dim), random(rows, kv_heads, dim), random(rows, kv_heads, dim)
    _, logsumexp, *_ = flash(q, k, v, ends(lengths), ends(lengths), max(lengths), max(lengths), True)
    wanted, start = torch.empty(heads, rows, dtype=torch.float64), 0
    for length in lengths:
        part = slice(start, start + length)
        keys = k[part].double().cpu().repeat_interleave(heads // kv_heads, 1)
        scores = torch.einsum("qhd,khd->hqk", q[part].double().cpu(), keys) / math.sqrt(dim)
        scores.masked_fill_(torch.ones(length, length).triu(1).bool(), -math.inf)
        wanted[:, part] = scores.logsumexp(-1)
        start += length
    found = list(logsumexp.shape)
    say("logsumexp", shape=found, dtype=logsumexp.dtype, is_heads_by_rows=found == [heads, rows],
        error=error(logsumexp, wanted) if found == [heads, rows] else None)


# Prompts of 7 and 5; prompt 0 has samples of 4, 3, 6, its first sample revisions of 3 and 4; prompt 1 samples of 2
# and 5. Rows breadth first; a call: query rows, key rows, ends of the segments of each, causal.
LENGTHS, PARENTS = [7, 5, 4, 3, 6, 2, 5, 3, 4], [-1, -1, 0, 0, 0, 1, 1, 2, 2]
OWN = [0, 7, 12, 16, 19, 25, 27, 32, 35, 39]
CALLS = [
    ((0, 39), (0, 39), OWN, OWN, True),
    ((12, 32), (0, 12), [0, 13, 20], [0, 7, 12], False),
    ((32, 39), (0, 12), [0, 7, 7], [0, 7, 12], False),
    ((32, 39), (12, 32), [0, 7, 7, 7, 7, 7], [0, 4, 7, 13, 15, 20], False),
]


def tree_mask():
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
    mask = torch.zeros(39, 39, dtype=torch.bool)
    for node, (start, length) in enumerate(zip(starts, LENGTHS)):
        rows = slice(start, start + length)
        mask[rows, rows] = torch.ones(length, length).tril().bool()
        parent = PARENTS[node]
        while parent >= 0:
            mask[rows, starts[parent] : starts[parent] + LENGTHS[parent]] = True
            parent = PARENTS[parent]
    return mask


def tree(heads, kv_heads, dim):
    q, k, v, grad = random(39, heads, dim), random(39, kv_heads, dim), random(39, kv_heads, dim), random(39, heads, dim)
    exact = [part.double().cpu().requires_grad_() for part in (q, k, v)]
    keys, values = (part.repeat_interleave(heads // kv_heads, 1) for part in exact[1:])
    scores = torch.einsum("qhd,khd->hqk", exact[0], keys) / math.sqrt(dim)
    wanted = torch.einsum("hqk,khd->qhd", scores.masked_fill(~tree_mask(), -math.inf).softmax(-1), values)
    wanted.backward(grad.double().cpu())

    merged, logsumexp = torch.zeros(39, heads, dim, device=D), torch.full((heads, 39), -math.inf, device=D)
    states = []
    for (a, b), (c, d), queries, keys, causal in CALLS:
        offsets = [torch.tensor(part, dtype=torch.int32, device=D) for part in (queries, keys)]
        longest = [max(y - x for x, y in zip(part, part[1:])) for part in (queries, keys)]
        poison()
        part, own, *state = flash(q[a:b], k[c:d], v[c:d], *offsets, *longest, causal)
        total = torch.logaddexp(logsumexp[:, a:b], own)
        before, now = ((x - total).exp().T[..., None] for x in (logsumexp[:, a:b], own))
        merged[a:b] = merged[a:b] * before + part.float() * now
        logsumexp[:, a:b] = total
        states.append((*offsets, *longest, state[0], state[1]))

    grads = [torch.zeros_like(part, dtype=torch.float32) for part in (q, k, v)]
    unasked = []
    result = merged.bfloat16()
    for ((a, b), (c, d), queries, keys, causal), (*sizes, rng, unused) in zip(CALLS, states):
        poison()
        parts = backward_call(grad[a:b], q[a:b], k[c:d], v[c:d], result[a:b], logsumexp[:, a:b].contiguous(),
                              *sizes, 0.0, causal, rng, unused)
        for total, part, (x, y) in zip(grads, parts, ((a, b), (c, d), (c, d))):
            total[x:y] += part.float()
        for i in range(len(queries) - 1):
            if queries[i] == queries[i + 1]:
                unasked += [part[keys[i] : keys[i + 1]] for part in parts[1:]]
    errors = {name: error(ours, theirs.grad) for name, ours, theirs in zip(("dq", "dk", "dv"), grads, exact)}
    return {"forward": error(merged, wanted.detach()), **errors,
            "zero_without_queries": all(bool((part == 0).all()) for part in unasked)}


def tree_by_calls():
    for heads, kv_heads, dim in [(4, 2, 64), (8, 2, 128), (6, 2, 32), (4, 4, 256)]:
        say("tree_by_calls", heads=heads, kv_heads=kv_heads, dim=dim, **tree(heads, kv_heads, dim))


def strided_inputs():
    qkv = random(64, 8 * 64)
    parts = [part.view(64, -1, 64) for part in qkv.split([256, 128, 128], 1)]
    offsets = ends([40, 24])
    views = flash(*parts, offsets, offsets, 40, 40, True)
    copies = flash(*(part.contiguous() for part in parts), offsets, offsets, 40, 40, True)
    say("strided_inputs", same_bits=all(bool((x == y).all()) for x, y in zip(views[:2], copies[:2])))


def accumulate_in_place():
    rows, m, n = 8192, 2560, 9728
    x, y, sums = random(rows, m), random(rows, n), torch.randn(m, n, device=D)
    wanted = sums.double() + x.double().T @ y.double()
    call = lambda: torch.ops.aten.addmm.dtype_out(sums, x.T, y, torch.float32, beta=1, alpha=1, out=sums)
    call()
    found = error(sums, wanted)
    rate = lambda work: round(2 * m * n * rows / milliseconds(work) / 1e9)
    say("accumulate_in_place", error=found, tflops=rate(call), tflops_product_alone=rate(lambda: x.T @ y),
        tflops_then_add=rate(lambda: sums.add_(torch.mm(x.T, y, out_dtype=torch.float32))))


def flash_speed():
    for name, lengths in [("16 x 512", [512] * 16), ("64 x 128", [128] * 64)]:
        rows, longest, offsets, heads, kv_heads, dim = sum(lengths), max(lengths), ends(lengths), 32, 8, 128
        q, k, v = random(rows, heads, dim), random(rows, kv_heads, dim), random(rows, kv_heads, dim)
        grad = random(rows, heads, dim)
        o, logsumexp, rng, unused, _ = flash(q, k, v, offsets, offsets, longest, longest, True)
        work = lambda: backward_call(grad, q, k, v, o, logsumexp, offsets, offsets, longest, longest, 0.0, True, rng, unused)
        row = {"forward_ms": milliseconds(lambda: flash(q, k, v, offsets, offsets, longest, longest, True))}
        for deterministic in (False, True):
            torch.use_deterministic_algorithms(deterministic)
            first = work()
            repeats = all(all(bool((x == y).all()) for x, y in zip(first, work())) for _ in range(4))
            key = "deterministic" if deterministic else "backward"
            row |= {f"{key}_ms": milliseconds(work), f"{key}_repeats": repeats}
        torch.use_deterministic_algorithms(False)
        say("flash_speed", causal=name, heads=heads, kv_heads=kv_heads, dim=dim, **row)


def ceilings():
    x, y = random(8192, 8192), random(8192, 8192)
    from_ = torch.randn(1 << 30, device=D)
    to = torch.empty_like(from_)
    wide = x.float()
    say("ceilings", gemm_tflops=2 * 8192**3 / milliseconds(lambda: x @ y) / 1e9,
        fp32_gemm_tflops=2 * 8192**3 / milliseconds(lambda: wide @ wide, 3) / 1e9,
        copy_tb_s=2 * from_.nbytes / milliseconds(lambda: to.copy_(from_)) / 1e9)
    number = torch.zeros(1, device=D)
    start = time.perf_counter()
    for _ in range(200):
        number.item()
    say("latencies", read_back_us=(time.perf_counter() - start) / 200 * 1e6,
        graph_node_us=1000 * replayed(lambda: number.add_(1), 1000))


def products():
    """The products of one layer, weights in turn so that none stays in the cache."""
    for shape, hidden, q, kv, inner in [("0.6b", 1024, 2048, 1024, 3072), ("1.7b", 2048, 2048, 1024, 6144),
                                        ("4b", 2560, 4096, 1024, 9728)]:
        for rows in (32, 256, 1024, 8192):
            total = numbers = 0
            for i, o in [(hidden, q + 2 * kv), (q, hidden), (hidden, 2 * inner), (inner, hidden)]:
                weights = [random(o, i) for _ in range(max(2, 120_000_000 // (i * o)))]
                x = random(rows, i)
                total += replayed(lambda: [x @ weight.T for weight in weights], 2) / len(weights)
                numbers += i * o
            say("products", shape=shape, rows=rows, layer_us=1000 * total, tflops=2 * rows * numbers / total / 1e9,
                weights_tb_s=2 * numbers / total / 1e9)
    for rows in (32, 256, 1024, 4096):
        weight, x = random(151936, 2560), random(rows, 2560)
        ms = milliseconds(lambda: torch.mm(x, weight.T, out_dtype=torch.float32))
        say("head", rows=rows, ms=ms, tflops=2 * rows * weight.numel() / ms / 1e9)


for section in (environment, logsumexp_layout, tree_by_calls, strided_inputs, accumulate_in_place, flash_speed,
                ceilings, products):
    try:
        section()
    except Exception as failure:  # one fact must not take the others with it
        say(section.__name__, error=f"{type(failure).__name__}: {str(failure)[:400]}")
        traceback.print_exc()
