"""DINO's loss, centre and moving averages, float64, one number at a time (arXiv 2104.14294)."""

from __future__ import annotations

import math

import numpy as np


def softmax(row: np.ndarray) -> list[float]:
    top = max(float(x) for x in row)
    exponentials = [math.exp(float(x) - top) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def distillation(student, teacher, centre, tau_student, tau_teacher) -> dict:
    """Loss, terms and d loss / d student `[b, s, k]`; every row counts."""
    b, views, k = student.shape
    global_views = teacher.shape[1]
    pairs = global_views * (views - 1)
    loss = entropy = 0.0
    gradient = np.zeros(student.shape)
    mean_target, mean_output = np.zeros(k), np.zeros(k)
    for i in range(b):
        for t in range(global_views):
            p = softmax([(teacher[i, t, j] - centre[j]) / tau_teacher for j in range(k)])
            entropy -= sum(x * math.log(x) for x in p) / (b * global_views)
            for j in range(k):
                mean_target[j] += p[j] / (b * global_views)
                mean_output[j] += teacher[i, t, j] / (b * global_views)
            for s in range(views):
                if s == t:
                    continue
                q = softmax(student[i, s] / tau_student)
                loss -= sum(p[j] * math.log(q[j]) for j in range(k)) / (b * pairs)
                for j in range(k):
                    gradient[i, s, j] += (q[j] - p[j]) / (tau_student * b * pairs)
    return {
        "loss": loss,
        "entropy": entropy,
        "excess": loss - entropy,
        "marginal_entropy": -sum(x * math.log(x) for x in mean_target),
        "teacher_mean": mean_output,
        "gradient": gradient,
    }


def teacher_momentum(updates: int, total: int, start: float) -> float:
    return 1 - (1 - start) * (math.cos(math.pi * updates / total) + 1) / 2
