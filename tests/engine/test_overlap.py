"""Reading ahead and writing behind: order, bounds and errors."""

import threading
import time
from contextlib import closing

import pytest
import torch

from evomerge.engine.overlap import Memory, Outputs, ahead


def test_items_come_in_order_and_only_so_many_ahead() -> None:
    prepared: list[int] = []
    seen = []
    with closing(ahead(range(20), prepared.append, lambda _: 10, limit=35)) as items:
        for item in items:
            time.sleep(0.002)
            assert prepared[item] == item
            assert len(prepared) - (item + 1) <= 4
            seen.append(item)
    assert seen == list(range(20))


def test_an_item_larger_than_the_limit_passes() -> None:
    prepared: list[int] = []
    assert list(ahead([1, 2, 3], prepared.append, lambda _: 100, limit=10)) == [1, 2, 3]
    assert prepared == [1, 2, 3]


def test_an_error_comes_at_the_turn_of_its_item() -> None:
    def prepare(item: int) -> None:
        if item == 3:
            raise OSError("disk")

    seen: list[int] = []
    with pytest.raises(OSError, match="disk"):
        seen.extend(ahead(range(9), prepare, lambda _: 1))
    with closing(ahead(range(9), prepare, lambda _: 1)) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="disk"):
            next(items)


def test_a_closed_reader_leaves_no_thread() -> None:
    before = threading.active_count()
    items = ahead(range(100), lambda _: time.sleep(0.01), lambda _: 1)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before


def test_memory_serves_every_shape_and_type() -> None:
    memory = Memory(24)
    for shape, dtype in (((2, 3), torch.float32), ((), torch.bfloat16), ((0, 5), torch.int8)):
        tensor = memory.tensor(shape, dtype)
        assert tensor.shape == shape
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()


def test_results_are_written_whole_and_in_order_by_a_slow_writer() -> None:
    written = []

    def write(name: str, tensor: torch.Tensor) -> None:
        time.sleep(0.003)
        written.append((name, tensor.tolist()))

    with Outputs(write, 12) as outputs:
        for i in range(10):
            tensor = outputs.tensor((3,), torch.float32).fill_(i)
            outputs.put(str(i), tensor)
    assert written == [(str(i), [float(i)] * 3) for i in range(10)]


def test_merging_goes_on_while_one_result_is_written() -> None:
    gate = threading.Event()
    with Outputs(lambda *_: None if gate.wait(5) else pytest.fail("stuck"), 4) as outputs:
        outputs.put("a", outputs.tensor((), torch.float32))
        outputs.put("b", outputs.tensor((), torch.float32))
        gate.set()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_error_of_the_writer_is_raised(count: int) -> None:
    def write(name: str, tensor: torch.Tensor) -> None:
        raise OSError(f"no room for {name}")

    def fill() -> None:
        with Outputs(write, 4) as outputs:
            for i in range(count):
                outputs.put(str(i), outputs.tensor((), torch.float32))

    with pytest.raises(OSError, match="no room for 0"):
        fill()
