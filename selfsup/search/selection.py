"""Choosing the largest of many products, compiled: a buffer of candidates for each query.

A buffer takes what is not below its query's threshold. When it is full, what cannot be among the k
largest leaves, and the threshold rises. Products are float32, or the bits of bfloat16 as int16,
which have the order of the numbers where these are positive.

Shape letters: r queries, t rows of a tile of the bank, c room of a buffer, d width, k neighbours.
"""

from typing import Any

import numpy as np

from selfsup.core.compiled import kernel_with_infinities as kernel

ROUNDING: Any = np.float32(2**-8)  # relative error of a bfloat16 result: twice the most
OVERFLOW = -1  # instead of a count: the query has to be repeated in the next precision
MINUS_ZERO = -(2**31)  # bits of -0.0


@kernel
def take(products, threshold, values, places, count, start, k, error_bound):  # type: ignore[no-untyped-def]
    """Append what is not below the threshold to the buffers.

    Flags first, then the groups of eight that hold a flag, then the columns of these: loops without
    a branch that depends on the data.

    Args:
        products: [r, t].
        threshold: [r].
        values: [r, c], of the same type.
        places: int32 [r, c], rows of the bank.
        count: int64 [r], how many a buffer holds.
        start: row of the bank that the tile begins with.
        k: how many stay in a buffer that is full.
        error_bound: float32 [r]; see `keep`.
    """
    width, room = products.shape[1], values.shape[1]
    work = np.empty(room, values.dtype)
    flags = np.zeros((width + 7) // 8 * 8, np.uint8)
    eights = flags.view(np.uint64)
    flagged = np.empty(len(eights) + 1, np.int32)
    columns = np.empty(len(flags) + 1, np.int32)
    for r in range(len(products)):
        row, value, place = products[r], values[r], places[r]
        least, n, n_flagged, n_columns = threshold[r], count[r], 0, 0
        if n < 0:
            continue
        for j in range(width):
            flags[j] = row[j] >= least
        for e in range(len(eights)):
            flagged[n_flagged] = e
            n_flagged += eights[e] != 0
        for e in flagged[:n_flagged]:
            for j in range(8 * e, 8 * e + 8):
                columns[n_columns] = j
                n_columns += flags[j]
        for j in columns[:n_columns]:
            if n == room:
                n = keep(value, place, n, k, work, threshold[r : r + 1], error_bound[r])
                least = threshold[r]
                if n < 0:
                    break
            value[n], place[n] = row[j], start + j
            n += row[j] >= least
        count[r] = n


@kernel
def keep(value, place, n, k, work, threshold, error_bound):  # type: ignore[no-untyped-def]
    """Move the candidates that may be among the k largest to the front, and set the threshold.

    If `error_bound` < 0, values are exact: k stay, of equal ones the first in the buffer, and the
    threshold is the k-th largest. Otherwise a value is off by at most half of `error_bound` (and by
    bfloat16's rounding), and all stay that are not below the k-th largest minus `error_bound`, the
    new threshold. For k = 1, error_bound 0.02 and float32 products 0.90, 0.89, 0.87 the threshold
    is 0.88: the first may truly be 0.89 and the second 0.90, so both stay; the third is at most
    0.88 and leaves.

    Args:
        value: [c], the buffer of one query, float32 or bits of bfloat16; written over.
        place: int32 [c], rows of the bank; moved along.
        n: how many the buffer holds, k or more.
        k: neighbours that are wanted.
        work: [c], of value's type; scratch.
        threshold: [1], the query's; written over.
        error_bound: twice the most that a value is off; negative where values are exact.

    Returns:
        How many stay, in the order they had. OVERFLOW where fewer than k places would be free, or
        the new threshold is below the old one, so that a row may have been dropped wrongly, or
        where it is not positive in bfloat16.
    """
    work[:n] = value[:n]
    kth = _kth_largest(work[:n], k)
    remaining = 0
    if error_bound >= 0:
        before = threshold[0]
        if threshold.itemsize == 2:
            bar = _lowest_open(kth, error_bound)
            if bar < 1:
                return OVERFLOW
            threshold[0] = bar
        else:
            threshold[0] = kth - error_bound
        if threshold[0] < before:
            return OVERFLOW
        for i in range(n):
            value[remaining], place[remaining] = value[i], place[i]
            remaining += value[i] >= threshold[0]
        return remaining if remaining <= len(value) - k else OVERFLOW
    above = 0
    for i in range(n):
        above += value[i] > kth
    equal = k - above
    for i in range(n):
        if value[i] > kth or (value[i] == kth and equal > 0):
            equal -= value[i] == kth
            value[remaining], place[remaining] = value[i], place[i]
            remaining += 1
    threshold[0] = kth
    return remaining


@kernel
def _lowest_open(bits, error_bound):  # type: ignore[no-untyped-def]
    """The bits of the lowest bfloat16 product that may truly exceed this one; -1 if not positive.

    A product p stands for a true value between p (1 - 2^-8) - error_bound / 2 and
    p (1 + 2^-8) + error_bound / 2. For p = 0.9414 and error_bound 0.0057 the true value is 0.9349
    or more; a product of 0.92 is 0.9264 at most and is closed, one of 0.9297 is 0.9362 and is open.
    """
    whole = np.empty(1, np.int32)
    real = whole.view(np.float32)
    whole[0] = np.int32(bits) << 16
    real[0] = (real[0] * (1 - ROUNDING) - error_bound) / (1 + ROUNDING)
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
def set_threshold(products, threshold, rank):  # type: ignore[no-untyped-def]
    """Write the rank-th largest of each row, or a little less: it is taken from maxima of groups.

    The maxima of groups are some of the row's values, so that their rank-th largest is at most the
    row's. Of the row 5 1 4 2 in groups {5, 4} and {1, 2} the maxima are 5 and 2, and the second
    largest of these is 2, where the row's is 4.
    """
    groups = products.shape[1] // min(8, max(1, products.shape[1] // (4 * rank)))
    work = np.empty(groups, products.dtype)
    for r in range(len(products)):
        row = products[r]
        work[:] = row[:groups]
        for start in range(groups, len(row) - groups + 1, groups):
            for j in range(groups):
                work[j] = max(work[j], row[start + j])
        threshold[r] = _kth_largest(work, rank)


@kernel
def shrink(values, places, count, threshold, k, error_bound):  # type: ignore[no-untyped-def]
    """Leave in each buffer what may be among the k largest."""
    work = np.empty(values.shape[1], values.dtype)
    for r in range(len(values)):
        if count[r] >= k:
            low = threshold[r : r + 1]
            count[r] = keep(values[r], places[r], count[r], k, work, low, error_bound[r])


@kernel
def rescore(queries, bank, places, count, similarity, indices):  # type: ignore[no-untyped-def]
    """Multiply each query with its candidates in float32, and write the k largest in order.

    Equal ones come by their row. A query with fewer than k candidates is left out.
    """
    k = similarity.shape[1]
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
        out = similarity[r].view(np.int32)
        for j in range(k):
            indices[r, j] = keys[j] & 0xFFFFFFFF
            out[j] = _ordered(~np.int32(keys[j] >> 32))


@kernel
def _ordered(bits):  # type: ignore[no-untyped-def]
    """A float's bits as a whole number of the same order; its own inverse, but for -0.0."""
    if bits == MINUS_ZERO:  # equals 0.0
        return np.int32(0)
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))
