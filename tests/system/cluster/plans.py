# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which scenarios are played on which cluster, one after the other; several clusters at a time.

Nearly all the time is spent in waiting for time-outs, so the clusters' courses run in threads.
A scenario whose course broke before it has the course's error for an outcome.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from tests.system.cluster import (
    debian_root,
    drills,
    examined,
    fence_agents,
    pcs_and_crmsh,
    scenarios,
)
from tests.system.cluster.cluster import Cluster
from tests.system.cluster.machine import Site
from tests.system.cluster.scenarios import Kit, Outcome

Step = Callable[[Cluster, Kit], Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A cluster, and what happens to it. `setup` goes before the first of the steps."""

    steps: dict[str, Step]
    size: int = 3
    rings: int = 1
    witnessed: bool = False  # whether each call of fence_kdump is noted
    keyed: bool = False  # whether each node has the cluster's key
    daemon: bool = False  # whether kdumpfenced runs on each node that has our package
    agents: tuple[str, ...] = ("ours", "stock")  # that it may be played with
    setup: Step | None = scenarios.configure
    seconds: float = 100  # roughly, so that the longest can begin first


def _a_device_each(cluster: Cluster, kit: Kit) -> Outcome:
    scenarios.configure(cluster, kit, each=True, old=True)
    return scenarios.two_of_five(cluster, kit, "two, a device each")


def _default_limits(cluster: Cluster, kit: Kit) -> Outcome:
    scenarios.configure(cluster, kit, at_once=False, old=True)
    return scenarios.two_of_five(cluster, kit, "two, one device, default limit")


PLANS = {
    "pcs": Plan({"pcs": pcs_and_crmsh.with_pcs}, rings=2, witnessed=True, setup=None),
    "crmsh": Plan({"crmsh": pcs_and_crmsh.with_crmsh}, rings=2, setup=None),
    "waits": Plan(
        {
            "panic": scenarios.panic,
            "silence": scenarios.silence,
            "late": scenarios.late,
            "just in time": scenarios.just_in_time,
        },
        seconds=140,
    ),
    "harm": Plan({"leader": scenarios.leader, "busy": scenarios.busy}),
    "lies": Plan(
        {
            "forged": scenarios.forged,
            "spoofed": scenarios.spoofed,
            "spoofed, key": scenarios.spoofed_with_key,
        },
        keyed=True,
        agents=("ours",),
        seconds=120,
    ),
    "keys": Plan(
        {
            "names": scenarios.key_and_names,
            "addresses": scenarios.key_and_addresses,
            "no key yet": scenarios.no_key_yet,
            "failed stop, key": scenarios.failed_stop_with_key,
            "rotation": scenarios.rotation,
        },
        keyed=True,
        daemon=True,
        agents=("ours",),
        setup=scenarios.configure_keys,
        seconds=140,
    ),
    "mixed": Plan(
        {"failed stop": scenarios.failed_stop, "other sender": scenarios.other_sender},
        daemon=True,
        seconds=70,
    ),
    "clocks": Plan(
        {
            "killed": scenarios.killed,
            "after killed": scenarios.after_killed,
            "short stonith-timeout": scenarios.short_stonith_timeout,
            "stonith-timeout alone": scenarios.stonith_timeout_alone,
        },
        witnessed=True,
        seconds=120,
    ),
    "five": Plan(
        {
            "two, one device": scenarios.two_of_five,
            "two, a device each": _a_device_each,
            "two, one device, default limit": _default_limits,
        },
        size=5,
        seconds=150,
    ),
    "doctor": Plan(
        {"planted": examined.healthy_and_planted}, rings=2, agents=("ours",), setup=None, seconds=90
    ),
    "drills": Plan(
        {"drill": drills.drill, "silent drill": drills.silent_drill},
        agents=("ours",),
        seconds=90,
    ),
    "rings": Plan(
        {"doctor": scenarios.examined, "second ring": scenarios.second_ring}, rings=2, seconds=50
    ),
}


class Course(threading.Thread):
    """One cluster's life, in a thread of its own."""

    def __init__(self, plan: Plan, agent: str, turns: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.plan = plan
        self.seconds = 0.0
        self.outcomes: dict[str, Future[Any]] = {name: Future() for name in plan.steps}
        self._kit = Kit(agent)
        self._turns = turns
        self._site: Site | None = None
        self._stopped = False

    def run(self) -> None:
        with self._turns:
            began = time.monotonic()
            try:
                self._play()
            except Exception:
                trouble = scenarios.Failure(traceback.format_exc())
                for outcome in self.outcomes.values():
                    if not outcome.done():
                        outcome.set_exception(trouble)
            finally:
                self.seconds = time.monotonic() - began

    def _play(self) -> None:
        if self._stopped:
            raise RuntimeError("stopped before it began")
        plan, kit = self.plan, self._kit
        with Site(debian_root.get(), plan.rings) as site:
            self._site = site
            fence_agents.install(site, kit.agent)
            if plan.witnessed:
                fence_agents.witness(site)
            if plan.keyed:
                fence_agents.give_key(site)
            if plan.daemon and kit.agent == "ours":
                fence_agents.enable_daemon(site)
            cluster = Cluster(site, plan.size)
            cluster.start()
            if plan.setup is not None:
                plan.setup(cluster, kit)
            fenced: list[str] | None = None
            for name, step in plan.steps.items():
                if fenced is not None:
                    fallen = [n for n in cluster.nodes if not n.runs or n.name in fenced]
                    cluster.bring_back(*fallen)
                    if plan.setup is not None:
                        scenarios.settled(cluster)
                outcome = step(cluster, kit)
                fenced = list(outcome.seconds)
                self.outcomes[name].set_result(outcome)

    def stop(self) -> None:
        """Take the cluster down, whatever it does, and wait until it is gone."""
        self._stopped = True
        if self._site is not None:
            self._site.kill()
        self.join(60)


class Courses:
    """Several courses, some of them at the same time."""

    def __init__(self, wanted: Iterable[tuple[str, str]], at_once: int) -> None:
        """Start them; each is named by its plan and its agent."""
        turns = threading.Semaphore(at_once)
        self.courses = {
            (plan, agent): Course(PLANS[plan], agent, turns) for plan, agent in sorted(set(wanted))
        }
        for course in sorted(self.courses.values(), key=lambda one: -one.plan.seconds):
            course.start()

    def result(self, plan: str, agent: str, scenario: str) -> Any:
        """Wait for a scenario's outcome. Raises scenarios.Failure."""
        return self.courses[plan, agent].outcomes[scenario].result()

    def stop(self) -> None:
        for course in self.courses.values():
            course.stop()
