"""The worker: whose turn it is, what a full queue does, and that every job ends, whatever happens to it."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from mmtune.errors import DataError
from mmtune.serve.fair_queue import FairQueue
from mmtune.serve.worker import Busy, Draining, Worker


@dataclass(frozen=True)
class Item:
    client: str
    number: int = 0


def taken(queue):
    return [(item.client, item.number) for item in (queue.take() for _ in range(len(queue)))]


def filled(size, *clients):
    queue, numbers = FairQueue(size), dict.fromkeys(clients, 0)
    for client in clients:
        numbers[client] += 1
        assert queue.put(Item(client, numbers[client])) is None
    return queue


def test_clients_take_turns_and_each_keeps_its_order():
    queue = filled(9, *"aaaaabbc")
    assert taken(queue) == [*zip("abcabaaa", (1, 1, 1, 2, 2, 3, 4, 5), strict=True)]


def test_one_who_comes_late_is_served_in_the_next_round():
    queue = filled(99, *"a" * 50)
    assert queue.take() == Item("a", 1)
    queue.put(Item("b", 1))
    assert taken(queue)[:3] == [("a", 2), ("b", 1), ("a", 3)]


def test_a_full_queue_is_shared_out_evenly():
    queue = filled(4, *"aaaa")
    assert queue.put(mine := Item("a", 5)) is mine
    assert queue.put(Item("b", 1)) == Item("a", 4)
    assert queue.put(Item("b", 2)) == Item("a", 3)
    assert queue.put(mine := Item("b", 3)) is mine
    assert queue.put(Item("c", 1)) == Item("a", 2)
    assert queue.put(mine := Item("c", 2)) is mine
    assert taken(queue) == [("a", 1), ("b", 1), ("c", 1), ("b", 2)]


def test_an_item_is_taken_out_once():
    queue = filled(4, *"aab")
    assert queue.remove(Item("b", 1))
    assert not queue.remove(Item("b", 1))
    assert not queue.remove(Item("c", 1))
    assert taken(queue) == [("a", 1), ("a", 2)]


@pytest.fixture
def worker():
    with Worker(size=3) as made:
        yield made


class Held:
    """A job that runs until it is let go."""

    def __init__(self, worker, client="a"):
        self.runs, self.may_end = threading.Event(), threading.Event()
        self.job = worker.submit(client, self.work)
        assert self.runs.wait(10)

    def work(self, job):
        self.runs.set()
        assert self.may_end.wait(10)
        job.check()
        return "held"


def test_pieces_result_and_errors_reach_the_reader(worker):
    def work(job):
        for piece in "ab":
            job.tell(piece)
        return "whole"

    def failing(job):
        job.tell("c")
        raise DataError("cat.png", "is no image.")

    with worker.submit("a", work) as job:
        assert list(job) == ["a", "b"]
    assert (job.result, job.is_over, job.was_cancelled) == ("whole", True, False)
    found = []
    with pytest.raises(DataError, match=r"cat\.png: is no image\."):
        found.extend(worker.submit("a", failing))
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        list(worker.submit("a", lambda job: exec("raise SystemExit(3)")))
    assert list(worker.submit("a", work)) == ["a", "b"]


def test_an_event_loop_reads_many_jobs_at_once(worker):
    def work(job):
        for number in range(50):
            job.tell(number)
        return threading.current_thread().name

    async def read(client):
        with worker.submit(client, work) as job:
            return [piece async for piece in job], job.result

    async def read_all():
        return await asyncio.gather(*map(read, "abc"))

    assert asyncio.run(read_all()) == [([*range(50)], "model")] * 3


def test_a_reader_that_stops_reading_never_holds_the_worker(worker):
    lazy = worker.submit("a", lambda job: [job.tell(number) for number in range(10_000)])
    assert list(worker.submit("b", lambda job: job.tell("next"))) == ["next"]
    assert len(list(lazy)) == 10_000


def test_a_full_queue_says_when_to_ask_again_and_drops_for_those_who_have_less(worker):
    held = Held(worker)
    jobs = [worker.submit("a", lambda job: job.tell("done")) for _ in range(3)]
    with pytest.raises(Busy, match=r"queue: 3 wait already, as many as may\. Ask again in \d+ s\.") as busy:
        worker.submit("a", lambda job: None)
    assert busy.value.seconds >= 1
    late = worker.submit("b", lambda job: job.tell("late"))
    with pytest.raises(Busy):
        list(jobs[2])
    held.may_end.set()
    assert [list(job) for job in (*jobs[:2], late)] == [["done"], ["done"], ["late"]]
    assert list(held.job) == []
    assert held.job.result == "held"


def test_a_cancelled_job_ends_and_its_place_is_free(worker):
    held = Held(worker)
    jobs = [worker.submit("a", lambda job: job.tell("done")) for _ in range(3)]
    jobs[1].cancel()
    assert (list(jobs[1]), jobs[1].result, worker.num_waiting) == ([], None, 2)
    held.job.cancel()
    assert not held.job.is_over
    held.may_end.set()
    assert (list(held.job), held.job.result, held.job.was_cancelled) == ([], None, True)
    assert [list(jobs[0]), list(jobs[2])] == [["done"], ["done"]]
    jobs[0].cancel()
    assert not jobs[0].was_cancelled


def test_leaving_the_with_cancels(worker):
    started, found = threading.Event(), []

    def endless(job):
        started.set()
        while True:
            job.tell("more")

    async def read():
        with worker.submit("a", endless) as job:
            async for piece in job:
                found.append(piece)
                if len(found) == 3:
                    break
        return job

    job = asyncio.run(read())
    assert found == ["more"] * 3
    assert job.was_cancelled
    assert list(worker.submit("a", lambda job: job.tell("next"))) == ["next"]


def test_draining_finishes_what_was_taken_and_takes_no_more(worker):
    held = Held(worker)
    waiting = worker.submit("b", lambda job: job.tell("done"))
    done = []
    thread = threading.Thread(target=lambda: done.append(worker.drain(10)))
    thread.start()
    while not worker.is_draining:
        pass
    with pytest.raises(Draining):
        worker.submit("a", lambda job: None)
    held.may_end.set()
    thread.join(10)
    assert done == [True]
    assert list(waiting) == ["done"]


def test_draining_cancels_what_is_not_done_in_time(worker):
    held = Held(worker)
    waiting = worker.submit("b", lambda job: job.tell("done"))
    assert not worker.drain(0.05)
    assert (list(waiting), waiting.was_cancelled) == ([], True)
    held.may_end.set()
    assert (list(held.job), held.job.was_cancelled) == ([], True)


def test_who_drains_waits_no_more_where_all_is_cancelled(worker):
    held, done = Held(worker), []
    thread = threading.Thread(target=lambda: done.append(worker.drain(600)))
    thread.start()
    while not worker.is_draining:
        pass
    worker.cancel_all()
    thread.join(10)
    assert done == [False]
    held.may_end.set()
