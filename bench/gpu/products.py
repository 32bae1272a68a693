"""A layer's products on a GPU: what the usual calls take, and what others would (docs/cuda.md).

    python3 bench/gpu/products.py [--out FILE] [--rows 32,256,1024]

One JSON object a line. The shape is 4B's, with the columns of one adapter of rank 16 behind each group of matrices. `usual`
is torch's linear, as the engine calls it; `lt` the same with cuBLASLt preferred; `halves` two products over half of the input
each, in fp32, whose sum another kernel would have to make; `best` the fastest of what cuBLASLt's heuristic offers, with what
it is, called as the engine calls it (native/kernels/cuda/lt_products.cc). Microseconds, replayed from a graph, weights in
turn so that none stays in the cache.

Of a training layer's product, without bias: `alone` without an adapter, `after` with the adapter's part added to the base's
product, `before` with the base's added to the adapter's, as the engine does where every column has an adapter, `joined` as
one product of matrices side by side.
"""

import argparse
import ctypes
import json
import traceback

import torch

arguments = argparse.ArgumentParser()
arguments.add_argument("--out")
arguments.add_argument("--rows", default="32,256,1024")
options = arguments.parse_args()

D = "cuda"
PRODUCTS = {"qkv": (2560, 6144 + 48), "o": (4096, 2560 + 16), "gate_up": (2560, 19456 + 32), "down": (9728, 2560 + 16)}
OFFERED = 24  # candidates that the heuristic is asked for
WORKSPACE = 32 << 20
BF16, FP32, COMPUTE_FP32 = 14, 0, 68  # cudaDataType_t, cublasComputeType_t
TRANSA, MAX_WORKSPACE, REDUCTIONS, ALIGNMENTS = 3, 1, 3, (5, 6, 7, 8)  # attributes of a product and of a preference
IN_FP32, ALIGNMENT = 2, 64  # as the engine asks: sums of parts are not rounded; of weights that lie in one tensor


def say(**values):
    line = json.dumps(values)
    print(line, flush=True)
    if options.out:
        with open(options.out, "a") as file:
            file.write(line + "\n")


def microseconds(work, weights):
    """Of one call, from a graph of one call for each weight."""
    work(weights[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            work(weight)
    graph.replay()
    times = []
    for _ in range(5):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return round(1000 * sorted(times)[2] / len(weights), 1)


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t"""

    _fields_ = [("algo", ctypes.c_uint64 * 8), ("workspace", ctypes.c_size_t), ("state", ctypes.c_int),
                ("waves", ctypes.c_float), ("reserved", ctypes.c_int * 4)]


class CublasLt:
    """y [rows, out] = x [rows, in] Wᵀ by one of the candidates."""

    def __init__(self):
        with open("/proc/self/maps") as maps:
            path = next(line.split()[-1] for line in maps if "libcublasLt.so" in line)
        self.library = ctypes.CDLL(path)
        self.handle = self.made("cublasLtCreate")
        self.preference = self.made("cublasLtMatmulPreferenceCreate")
        size = ctypes.c_uint64(WORKSPACE)
        self.call("cublasLtMatmulPreferenceSetAttribute", self.preference, MAX_WORKSPACE, ctypes.byref(size), 8)
        for attribute, value in [(REDUCTIONS, IN_FP32), *((operand, ALIGNMENT) for operand in ALIGNMENTS)]:
            number = ctypes.c_uint32(value)
            self.call("cublasLtMatmulPreferenceSetAttribute", self.preference, attribute, ctypes.byref(number), 4)
        self.product = self.made("cublasLtMatmulDescCreate", COMPUTE_FP32, FP32)
        transposed = ctypes.c_int32(1)
        self.call("cublasLtMatmulDescSetAttribute", self.product, TRANSA, ctypes.byref(transposed), 4)
        self.workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=D)

    def call(self, name, *values):
        status = getattr(self.library, name)(*values)
        if status != 0:
            raise RuntimeError(f"{name}: status {status}")

    def made(self, name, *values):
        result = ctypes.c_void_p()
        self.call(name, ctypes.byref(result), *values)
        return result

    def matrix(self, rows, columns):
        """Rows of the library are the numbers that lie side by side."""
        sizes = ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(rows)
        return self.made("cublasLtMatrixLayoutCreate", BF16, *sizes)

    def candidates(self, rows, inputs, outputs):
        """Functions of (weight, x, y), each with what it is."""
        a, b, c = self.matrix(inputs, outputs), self.matrix(inputs, rows), self.matrix(outputs, rows)
        found, count = (Heuristic * OFFERED)(), ctypes.c_int()
        self.call("cublasLtMatmulAlgoGetHeuristic", self.handle, self.product, a, b, c, c, self.preference, OFFERED,
                  found, ctypes.byref(count))
        one, zero = ctypes.c_float(1), ctypes.c_float(0)

        def made(result):
            def run(weight, x, y):
                self.call("cublasLtMatmul", self.handle, self.product, ctypes.byref(one),
                          ctypes.c_void_p(weight.data_ptr()), a, ctypes.c_void_p(x.data_ptr()), b, ctypes.byref(zero),
                          ctypes.c_void_p(y.data_ptr()), c, ctypes.c_void_p(y.data_ptr()), c, ctypes.byref(result.algo),
                          ctypes.c_void_p(self.workspace.data_ptr()), ctypes.c_size_t(WORKSPACE),
                          ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))

            return run, {"waves": round(result.waves, 2), **self.described(result)}

        return [made(found[i]) for i in range(count.value) if found[i].state == 0]

    def described(self, result):
        values = {}
        for name, attribute in [("id", 0), ("tile", 1), ("split", 2), ("stages", 6), ("cluster", 8)]:
            value, written = ctypes.c_uint32(0), ctypes.c_size_t()
            status = self.library.cublasLtMatmulAlgoConfigGetAttribute(
                ctypes.byref(result.algo), attribute, ctypes.byref(value), 4, ctypes.byref(written))
            if status == 0:
                values[name] = value.value
        return values


def best_of(library, name, rows, weights, x, wanted):
    inputs, outputs = PRODUCTS[name]
    y = torch.empty(rows, outputs, device=D, dtype=torch.bfloat16)
    results = []
    for run, what in library.candidates(rows, inputs, outputs):
        run(weights[0], x, y)
        close = torch.allclose(y.float(), wanted.float(), rtol=0.02, atol=0.02 * float(wanted.float().std()))
        results.append((microseconds(lambda weight: run(weight, x, y), weights), close, what))
    times = [time for time, _, _ in results]
    # A wrong one only where none is right.
    time, close, what = min(results, key=lambda result: (not result[1], result[0]))
    say(product=name, rows=rows, best=time, right=close, what=what, first=times[0], offered=times)


def halves(weight, x):
    inputs = x.shape[1]
    left = x.view(x.shape[0], 2, inputs // 2).transpose(0, 1)
    right = weight.view(weight.shape[0], 2, inputs // 2).permute(1, 2, 0)
    return torch.bmm(left, right, out_dtype=torch.float32)


def training(name, rows=8192, rank=16):
    """y [rows, outputs] = x Wᵀ + p Bᵀ, p = x Aᵀ of each of its matrices; and the gradient of x, δ W + q A."""
    inputs, columns = PRODUCTS[name]
    parts = {"qkv": [4096, 1024, 1024], "gate_up": [9728, 9728]}.get(name, [2560])
    outputs, ranks = sum(parts), rank * len(parts)
    assert columns == outputs + ranks
    made = lambda *shape: torch.randn(*shape, device=D, dtype=torch.bfloat16)
    x, p = made(rows, inputs + ranks).split([inputs, ranks], 1)
    delta, q = made(rows, outputs + ranks).split([outputs, ranks], 1)
    # As they lie for a joined product, and as they do now.
    wide, tall = made(outputs, inputs + ranks), made(outputs + ranks, inputs)
    w, a, b = made(outputs, inputs), made(ranks, inputs), [made(part, rank) for part in parts]
    x, delta = x.contiguous(), delta.contiguous()
    y, grad = made(rows, outputs), made(rows, inputs)
    joined_x, joined_delta = made(rows, inputs + ranks), made(rows, outputs + ranks)

    def adapters(beta):
        column = 0
        for j, part in enumerate(parts):
            to = y[:, column:column + part]
            torch.addmm(to, p[:, j * rank:(j + 1) * rank], b[j].t(), beta=beta, out=to)
            column += part

    def forward_after():
        torch.mm(x, w.t(), out=y)
        adapters(1)

    def forward_before():
        adapters(0)
        torch.addmm(y, x, w.t(), out=y)

    def backward_after():
        torch.mm(delta, w, out=grad)
        torch.addmm(grad, q, a, out=grad)

    def backward_before():
        torch.mm(q, a, out=grad)
        torch.addmm(grad, delta, w, out=grad)

    times = lambda **works: {what: microseconds(lambda _: work(), [None] * 4) for what, work in works.items()}
    say(product=name, rows=rows, training="forward", **times(
        alone=lambda: torch.mm(x, w.t(), out=y), after=forward_after, before=forward_before,
        joined=lambda: torch.mm(joined_x, wide.t(), out=y)))
    say(product=name, rows=rows, training="backward", **times(
        alone=lambda: torch.mm(delta, w, out=grad), after=backward_after, before=backward_before,
        joined=lambda: torch.mm(joined_delta, tall, out=grad)))


def measured(values, work):
    """One that fails must not take the others with it."""
    try:
        work()
    except Exception as failure:
        say(**values, error=f"{type(failure).__name__}: {str(failure)[:300]}")
        traceback.print_exc()


def main():
    library = None
    for rows in map(int, options.rows.split(",")):
        for name, (inputs, outputs) in PRODUCTS.items():
            weights = [torch.randn(outputs, inputs, device=D, dtype=torch.bfloat16)
                       for _ in range(max(4, 240_000_000 // (inputs * outputs)))]
            x = torch.randn(rows, inputs, device=D, dtype=torch.bfloat16)
            linear = torch.nn.functional.linear
            wanted = linear(x, weights[0])
            library = library or CublasLt()

            def preferring_lt():
                torch.backends.cuda.preferred_blas_library("cublaslt")
                try:
                    return {"lt": microseconds(lambda weight: linear(x, weight), weights)}
                finally:
                    torch.backends.cuda.preferred_blas_library("cublas")

            for work in (lambda: say(product=name, rows=rows,
                                     usual=microseconds(lambda weight: linear(x, weight), weights)),
                         lambda: say(product=name, rows=rows, **preferring_lt()),
                         lambda: say(product=name, rows=rows,
                                     halves=microseconds(lambda weight: halves(weight, x), weights)),
                         lambda: best_of(library, name, rows, weights, x, wanted)):
                measured({"product": name, "rows": rows}, work)
    for name in PRODUCTS:
        measured({"product": name, "training": True}, lambda: training(name))


main()
