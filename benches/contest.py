"""Runs the same measurement on several contestants in turn, round after round.

A contestant is a program that speaks as benches/worker does. Each is a process of its own, so that
they have nothing in common but the machine; and one sample of each follows the other, so that a
machine that becomes slower becomes slower for all of them.
"""

import os
import re
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from metrics import GUESTS, ROOT, Metric


class Unsupported(Exception):
    """The contestant does not have this metric."""


class Failed(Exception):
    """The contestant could not be measured; the text says why."""


@dataclass(frozen=True)
class Contestant:
    name: str
    command: tuple
    cache: Path
    scratch: Path
    # Where the guests are as binary modules; `None`: they are taken as text.
    guests: Optional[Path] = None

    def with_guests(self, guests: Path) -> "Contestant":
        return replace(self, guests=guests)

    def words(self, metric: Metric):
        """What this contestant is asked for; `None` if it has nothing to answer."""
        words = metric.floor if self.name == "floor" else metric.worker
        if not words:
            return None
        words = [word.replace("cache:", f"{self.cache}/") for word in words]
        if self.guests:
            text = re.compile(rf"^file={GUESTS}/(.*)\.wat$")
            words = [text.sub(rf"file={self.guests}/\1.wasm", word) for word in words]
        return words

    def disk_cache(self) -> Path:
        return self.scratch / f"disk-cache-{self.name}"

    def environment(self, metric: Metric) -> dict:
        """Of its processes: nothing that the library looks at but what the metric wants."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EXTISM_")}
        environment["EXTISM_CACHE_CONFIG"] = ""
        if metric.disk_cache:
            config = self.scratch / f"disk-cache-{self.name}.toml"
            self.disk_cache().mkdir(parents=True, exist_ok=True)
            config.write_text(f'[cache]\ndirectory = "{self.disk_cache()}"\n')
            environment["EXTISM_CACHE_CONFIG"] = str(config)
        return environment

    def start(self, metric: Metric) -> "Worker":
        return Worker([*self.command, *self.words(metric)], self.environment(metric))


class Worker:
    """A process that measures one thing."""

    DEADLINE = 300

    def __init__(self, command, environment):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env=environment, cwd=ROOT, text=True)
        try:
            answer = self.answer()
            if not answer.startswith("ready "):
                raise Failed(f"answered `{answer}`")
            self.version = answer.removeprefix("ready ")
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def answer(self) -> str:
        watchdog = threading.Timer(self.DEADLINE, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline().strip()
        watchdog.cancel()
        if line == "unsupported":
            raise Unsupported
        if line.startswith("error "):
            raise Failed(line.removeprefix("error "))
        if not line:
            code = self.process.wait()
            raise Failed(signal.Signals(-code).name if code < 0 else f"ended with {code}")
        return line

    def measure(self, iterations: int) -> float:
        try:
            self.process.stdin.write(f"{iterations}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; what it said last tells why
        return float(self.answer())

    def stop(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@dataclass(frozen=True)
class Effort:
    """How much time is spent."""

    sample: float  # seconds that one sample takes, where that can be chosen
    seconds: float  # for all samples of one metric
    rounds: range  # no fewer and no more
    slow_rounds: int  # where one sample takes seconds
    warm_up: float = 0  # seconds before the first sample of a process that takes many

    def goes_on(self, rounds_done: int, spent: float, slow: bool) -> bool:
        if slow:
            return rounds_done < self.slow_rounds
        if rounds_done < self.rounds.start:
            return True
        return rounds_done < self.rounds.stop and spent < self.seconds


FULL = Effort(sample=0.02, seconds=4, rounds=range(7, 41), slow_rounds=5)
QUICK = Effort(sample=0.004, seconds=0.5, rounds=range(3, 9), slow_rounds=1)


class Sampler:
    """Takes samples of one metric of one contestant."""

    def __init__(self, contestant: Contestant, metric: Metric, effort: Effort):
        self.contestant, self.metric, self.effort = contestant, metric, effort
        self.worker = None
        if metric.fresh:
            if metric.disk_cache:
                self.fill_disk_cache()
            return
        self.worker = contestant.start(metric)
        try:
            self.iterations = metric.iterations or self.calibrate()
        except BaseException:
            self.stop()
            raise

    def calibrate(self) -> int:
        """How many iterations make a sample; warms up on the way."""
        if self.metric.slow:
            return 1
        wanted = self.effort.sample * 1e9
        iterations, start = self.metric.at_first, time.monotonic()
        while True:
            began = time.monotonic()
            took = self.worker.measure(iterations)
            if self.metric.unit != "ns":
                took = (time.monotonic() - began) * 1e9
            if took >= wanted / 4 and time.monotonic() - start >= self.effort.warm_up:
                return max(self.metric.at_first, round(iterations * wanted / took))
            if took < wanted:
                iterations *= 4 if took < wanted / 16 else 2

    def fill_disk_cache(self):
        """Lets one process compile, and waits until what it compiled is on the disk."""
        folder = self.contestant.disk_cache()
        with self.contestant.start(self.metric) as worker:
            worker.measure(1)
            before, deadline = None, time.monotonic() + 8
            while time.monotonic() < deadline:
                time.sleep(0.4)
                now = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                if now and now == before:
                    break
                before = now

    def sample(self) -> float:
        """One value, in the unit of the metric."""
        metric = self.metric
        if metric.fresh:
            with self.contestant.start(metric) as worker:
                value, iterations = worker.measure(metric.fresh), metric.fresh
        else:
            value, iterations = self.worker.measure(self.iterations), self.iterations
        return value if metric.whole or metric.unit != "ns" else value / (iterations * metric.per)

    def stop(self):
        if self.worker:
            self.worker.stop()


def summary(samples) -> dict:
    ordered = sorted(samples)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else [ordered[0]] * 3
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1],
            "q1": quartiles[0], "q3": quartiles[2], "samples": list(samples)}


def ratios(metric: Metric, old, ours):
    """How far ours is ahead, round by round."""
    page = 4096 if metric.unit == "bytes" else 1e-9
    for a, b in zip(old, ours):
        yield max(b, 1e-9) / max(a, 1e-9) if metric.more_is_better else max(a, page) / max(b, page)


def hold(metric: Metric, contestants, effort: Effort, progress=lambda text: None) -> dict:
    """Measures one metric of all contestants. The result names what each gave, or why it gave nothing."""
    samplers, results = {}, {}
    try:
        for contestant in contestants:
            if not contestant.words(metric):
                continue
            progress(f"{contestant.name} warms up")
            try:
                samplers[contestant.name] = Sampler(contestant, metric, effort)
            except Unsupported:
                continue
            except Failed as why:
                results[contestant.name] = {"failed": str(why)}
        values = {name: [] for name in samplers}
        began, done = time.monotonic(), 0
        while samplers and effort.goes_on(done, time.monotonic() - began, metric.slow):
            order = list(samplers)
            for name in order if done % 2 == 0 else order[::-1]:
                progress(f"round {done + 1}: {name}")
                try:
                    values[name].append(samplers[name].sample())
                except Failed as why:
                    results[name] = {"failed": str(why)}
                    samplers.pop(name).stop()
            done += 1
        for name in samplers:
            results[name] = summary(values[name])
    finally:
        for sampler in samplers.values():
            sampler.stop()
    result = {"contestants": results}
    if all("median" in results.get(name, {}) for name in ("reference", "ours")):
        result["ratio"] = summary(list(ratios(metric, values["reference"], values["ours"])))
    return result
