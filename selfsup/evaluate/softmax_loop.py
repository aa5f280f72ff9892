"""Cross-entropy of few classes by numba: rows are read once for their logits and their gradient."""

import numpy as np

from selfsup.compiled import kernel


@kernel
def four_rows(x, classes, weight, bias, by_weight, by_bias):  # type: ignore[no-untyped-def]
    """Four rows at a time, which stay in the fastest cache between their logits and gradients."""
    n, d = x.shape
    c, total = len(bias), 0.0
    share = np.zeros((4, c), np.float32)
    for i in range(0, n, 4):
        rows = min(4, n - i)
        x0, x1, x2, x3 = x[i], x[min(i + 1, n - 1)], x[min(i + 2, n - 1)], x[min(i + 3, n - 1)]
        for k in range(c):
            w = weight[k]
            z0 = z1 = z2 = z3 = np.float32(0)
            for j in range(d):
                z0 += w[j] * x0[j]
                z1 += w[j] * x1[j]
                z2 += w[j] * x2[j]
                z3 += w[j] * x3[j]
            share[0, k], share[1, k] = z0 + bias[k], z1 + bias[k]
            share[2, k], share[3, k] = z2 + bias[k], z3 + bias[k]
        for r in range(rows):
            p, true = share[r], classes[i + r]
            most, own = p.max(), p[true]
            p[:] = np.exp(p - most)
            summed = p.sum()
            total += np.log(np.float64(summed)) + most - own
            p *= 1 / summed
            p[true] -= 1
            by_bias += p
        share[rows:] = 0
        for k in range(c):
            g = by_weight[k]
            p0, p1, p2, p3 = share[0, k], share[1, k], share[2, k], share[3, k]
            for j in range(d):
                g[j] += p0 * x0[j] + p1 * x1[j] + p2 * x2[j] + p3 * x3[j]
    return total
