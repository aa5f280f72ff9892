"""Losses of distillation as nested loops over floats: slow, literal, standard library only."""

import math

from oracles.mining import Rows, cosine, mean
from oracles.selfsupervised import log_softmax


def feature_cosine(student: Rows, teacher: Rows) -> float:
    """SimReg (Navaneet 2022), normalised: mean over the rows of 1 - cos(s_i, t_i)."""
    return mean([1 - cosine(s, t) for s, t in zip(student, teacher, strict=True)])


def feature_mse(student: Rows, teacher: Rows) -> float:
    """FitNets (Romero 2015) eq 3 as a mean: of (s_ik - t_ik)^2 over rows and dimensions."""
    pairs = zip(student, teacher, strict=True)
    return mean([(a - b) ** 2 for s, t in pairs for a, b in zip(s, t, strict=True)])


def relational(
    student: Rows, teacher: Rows, temperature: float, teacher_temperature: float
) -> float:
    """CompRess (Koohpayegani 2020) section 3 with the batch's other images as anchors: mean KL."""
    terms = []
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        q = log_softmax([cosine(student[i], student[j]) for j in others], temperature)
        p = log_softmax([cosine(teacher[i], teacher[j]) for j in others], teacher_temperature)
        terms.append(math.fsum(math.exp(x) * (x - y) for x, y in zip(p, q, strict=True)))
    return mean(terms)


def soft_neighbours(
    student: Rows,
    teacher: Rows,
    anchors: Rows,
    temperature: float,
    teacher_temperature: float,
) -> float:
    """SEED (Fang 2021) section 3.2: mean over i of -sum_k p_T(k | i) log p_S(k | i)."""
    terms = []
    for s, t in zip(student, teacher, strict=True):
        q = log_softmax([cosine(s, a) for a in anchors], temperature)
        p = log_softmax([cosine(t, a) for a in anchors], teacher_temperature)
        terms.append(-math.fsum(math.exp(x) * y for x, y in zip(p, q, strict=True)))
    return mean(terms)
