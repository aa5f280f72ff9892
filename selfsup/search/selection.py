"""Choosing the largest of many similarities, by numba: a buffer for each query.

A buffer takes what is not below its query's threshold. When it is full, what cannot be among the k
largest leaves, and the threshold rises. Similarities are float32, int32 (products of bytes) or the
bits of bfloat16 as int16, which have the order of the numbers where these are positive.

Shape letters: r queries, t rows of a tile of the bank, c room of a buffer, d width, k wanted.
"""

from typing import Any

import numpy as np

from selfsup.core.compiled import kernel

ROUNDING: Any = np.float32(2**-8)  # of a result in bfloat16: the most that it is off, as a share
OVERFLOW = -1  # instead of a count: the query has to be asked in another way


@kernel
def take(similar, low, values, places, count, start, k, reach):  # type: ignore[no-untyped-def]
    """Put what is not below the threshold into the buffers.

    Flags first, then the eights of them that hold one, then the columns of these: loops without a
    branch that depends on what is found.

    Args:
        similar: [r, t].
        low: [r], thresholds.
        values: [r, c], of the same kind.
        places: int32 [r, c], rows of the bank.
        count: int64 [r], how many a buffer holds.
        start: row of the bank that the tile begins with.
        k: how many stay in a buffer that is full.
        reach: float32 [r]; see `keep`.
    """
    width, room = similar.shape[1], values.shape[1]
    work = np.empty(room, values.dtype)
    flags = np.zeros((width + 7) // 8 * 8, np.uint8)
    eights = flags.view(np.uint64)
    some = np.empty(len(eights) + 1, np.int32)
    columns = np.empty(len(flags) + 1, np.int32)
    for r in range(len(similar)):
        row, value, place = similar[r], values[r], places[r]
        least, n, held, found = low[r], count[r], 0, 0
        if n < 0:
            continue
        for j in range(width):
            flags[j] = row[j] >= least
        for e in range(len(eights)):
            some[held] = e
            held += eights[e] != 0
        for e in some[:held]:
            for j in range(8 * e, 8 * e + 8):
                columns[found] = j
                found += flags[j]
        for j in columns[:found]:
            if n == room:
                n = keep(value, place, n, k, work, low[r : r + 1], reach[r])
                least = low[r]
                if n < 0:
                    break
            value[n], place[n] = row[j], start + j
            n += row[j] >= least
        count[r] = n


@kernel
def keep(value, place, n, k, work, low, reach):  # type: ignore[no-untyped-def]
    """Bring what may be among the k largest to the front, and raise the threshold to them.

    With a `reach` below 0 that is k, the first of equal ones. Else exact values are at most half of
    it away from these, beside the rounding of bfloat16, and all stay that may be among the k.

    Returns:
        How many, or OVERFLOW where they would fill the buffer or may have been dropped before.
    """
    work[:n] = value[:n]
    least = _kth_largest(work[:n], k)
    kept = 0
    if reach >= 0:
        before = low[0]
        if low.itemsize == 2:
            bar = _below(least, reach)
            if bar < 1:
                return OVERFLOW
            low[0] = bar
        else:
            low[0] = least - reach
        if low[0] < before:
            return OVERFLOW
        for i in range(n):
            value[kept], place[kept] = value[i], place[i]
            kept += value[i] >= low[0]
        return kept if kept <= len(value) - k else OVERFLOW
    above = 0
    for i in range(n):
        above += value[i] > least
    equal = k - above
    for i in range(n):
        if value[i] > least or (value[i] == least and equal > 0):
            equal -= value[i] == least
            value[kept], place[kept] = value[i], place[i]
            kept += 1
    low[0] = least
    return kept


@kernel
def _below(bits, reach):  # type: ignore[no-untyped-def]
    """Bits of the value that all rows have which may be above one of bits; negative if none is."""
    whole = np.empty(1, np.int32)
    real = whole.view(np.float32)
    whole[0] = np.int32(bits) << 16
    real[0] = (real[0] * (1 - ROUNDING) - reach) / (1 + ROUNDING)
    return whole[0] >> 16 if bits > 0 else OVERFLOW


@kernel
def _kth_largest(x, k):  # type: ignore[no-untyped-def]
    """Hoare's selection (1961), in place."""
    low, high = 0, len(x) - 1
    while low < high:
        pivot, i, j = x[(low + high) // 2], low, high
        while i <= j:
            while x[i] > pivot:
                i += 1
            while x[j] < pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return x[k - 1]


@kernel
def threshold(similar, low, rank):  # type: ignore[no-untyped-def]
    """The rank-th largest of each row, or a little below it: of maxima of every so many."""
    groups = similar.shape[1] // min(8, max(1, similar.shape[1] // (4 * rank)))
    work = np.empty(groups, similar.dtype)
    for r in range(len(similar)):
        row = similar[r]
        work[:] = row[:groups]
        for start in range(groups, len(row) - groups + 1, groups):
            for j in range(groups):
                work[j] = max(work[j], row[start + j])
        low[r] = _kth_largest(work, rank)


@kernel
def shrink(values, places, count, low, k, reach):  # type: ignore[no-untyped-def]
    """Leave in each buffer what may be among the k largest."""
    work = np.empty(values.shape[1], values.dtype)
    for r in range(len(values)):
        if count[r] >= k:
            count[r] = keep(values[r], places[r], count[r], k, work, low[r : r + 1], reach[r])


@kernel
def rerank(queries, bank, places, count, similar, chosen):  # type: ignore[no-untyped-def]
    """The float32 products of each query with its candidates, and the largest of them in order.

    Equal ones come by their place. A query with too few candidates is left out.
    """
    k = similar.shape[1]
    value = np.empty(places.shape[1], np.float32)
    work, low, keys = np.empty_like(value), np.empty(1, np.float32), np.empty(k, np.int64)
    for r in range(len(queries)):
        n, query, place = count[r], queries[r], places[r]
        if n < k:
            continue
        for c in range(n):
            total, row = np.float32(0), bank[place[c]]
            for j in range(len(query)):
                total += query[j] * row[j]
            value[c] = total
        if n > k:
            keep(value, place, n, k, work, low, np.float32(-1))
        bits = value.view(np.int32)
        for j in range(k):
            keys[j] = (np.int64(~_ordered(bits[j])) << 32) | np.int64(place[j])
        keys.sort()
        out = similar[r].view(np.int32)
        for j in range(k):
            chosen[r, j] = keys[j] & 0xFFFFFFFF
            out[j] = _ordered(~np.int32(keys[j] >> 32))


@kernel
def _ordered(bits):  # type: ignore[no-untyped-def]
    """A float's bits as a whole number of the same order; its own inverse."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))
