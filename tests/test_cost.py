"""What an answer costs; the operations are tested with the bench."""

from __future__ import annotations

import numpy as np

from agegender import cost, training


def test_the_speed_is_the_median_round_after_warming_up(monkeypatch):
    clock, asked = [0.0], []
    rounds = iter([100.0, 1.0, 4.0, 2.0])  # the first compiles

    def predict(model, pixels, rows, flip):
        asked.append((len(rows), flip))
        clock[0] += next(rounds)

    monkeypatch.setattr(training, "predict", predict)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cost, "flops", lambda model: 7)
    found = cost.facts(None, None, np.arange(1000), flip=True)
    assert found == {"flops": 7, "faces_per_second": cost.SPEED_FACES / 2}
    assert asked == [(cost.SPEED_FACES, True)] * 4
