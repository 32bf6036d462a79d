"""Each preview costs device time: only previews that are due and watched are rendered."""
import base64
import contextlib
import os
import tempfile
import threading

from harness import PATIENCE, Server, eventually, is_png, main

COUNT = os.path.join(tempfile.mkdtemp(prefix="imagend-test-"), "previews")
ENV = {"FAKE_PREVIEWS": COUNT, "FAKE_SLOTS": "4"}


def rendered():
    """(stage, step) of each preview that the engine was asked for since the last call."""
    try:
        with open(COUNT) as f:
            lines = [tuple(map(int, line.split())) for line in f]
        os.unlink(COUNT)
        return lines
    except FileNotFoundError:
        return []


def post(s, **fields):
    return s.post("/v1/jobs", {"prompt": "a", "size": 64, "steps": 100, "previews": 8,
                               **fields}).json["id"]


def previews(events):
    return [e[2]["preview"] for e in events if e[0] == "preview"]


def test_nobody_looks(s):
    for body in ({"n": 3}, {"previews": 32}, {"previews": 0}):
        assert s.wait_job(post(s, **body))["status"] == "done"
        assert rendered() == [], body


def test_a_stream_from_the_start(s):
    with s.held():
        job = post(s)
        events = s.events("GET", f"/v1/jobs/{job}/events")
        next(events)
    assert previews(events) == list(range(8))
    assert rendered() == [(0, round(.5 + i * 100 / 9)) for i in range(1, 9)]


def test_two_streams_share_previews(s):
    with s.held():
        job = post(s, n=2)
        streams = [s.events("GET", f"/v1/jobs/{job}/events") for _ in range(2)]
        for events in streams:
            next(events)
    assert [sorted(previews(events)) for events in streams] == [sorted([*range(8)] * 2)] * 2
    assert len(rendered()) == 16


def test_a_stream_that_comes_late(s):
    with s.held(50):
        job = post(s)
        eventually(lambda: s.get("/v1/jobs/" + job).json["images"][0]["step"] == 50, what="step 50")
        assert rendered() == []
        events = s.events("GET", f"/v1/jobs/{job}/events")
        while (event := next(events))[0] != "preview":
            pass  # what is due comes before the next step
        assert event[2]["preview"] == 0 and event[2]["step"] == 50
    assert previews(events) == [1, 2, 3, 4]
    assert rendered() == [(0, 50), (0, 56), (0, 67), (0, 78), (0, 89)]


def test_a_stream_that_leaves(s):
    with s.held(30):
        job = post(s)
        events = s.events("GET", f"/v1/jobs/{job}/events")
        while next(events)[0] != "preview":
            pass
        events.close()
        eventually(lambda: f"/v1/jobs/{job}/events" in s.log, what="the end of the stream")
        count = len(rendered())
        assert 1 <= count <= 2, count
    assert s.wait_job(job)["status"] == "done" and rendered() == []


def test_openai(s):
    body = {"prompt": "a", "size": "64x64", "steps": 100}
    for fields, count in (({}, 0), ({"stream": True}, 0), ({"stream": True, "partial_images": 0}, 0),
                          ({"stream": True, "partial_images": 3}, 3),
                          ({"stream": True, "partial_images": 2, "n": 2}, 4),
                          ({"stream": True, "partial_images": 3, "steps": 4}, 3),
                          ({"stream": True, "partial_images": 3, "steps": 2}, 1),
                          ({"stream": True, "partial_images": 3, "steps": 1}, 0),
                          ({"stream": True, "partial_images": 3, "size": "1024x1024"}, 3)):
        for _ in range(5):  # it never hangs on who is faster
            a = s.post("/v1/images/generations", {**body, **fields})
            assert a.status == 200, a.body
            assert a.body.count(b"event: image_generation.partial_image") == count, fields
            assert len(rendered()) == count, fields


@contextlib.contextmanager
def txt2img(s):
    """A drawing that begins when what this yields is called, and has ended when the block has."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(s.post("/sdapi/v1/txt2img", {
        "prompt": "x", "width": 64, "height": 64, "steps": 100})))
    yield thread.start
    thread.join(PATIENCE)
    assert answers and answers[0].status == 200


def progress(s, query=""):
    return s.get("/sdapi/v1/progress" + query).json


def at_step(s, step):
    eventually(lambda: progress(s, "?skip_current_image=true")["state"]["sampling_step"] == step,
               what=f"step {step}")


def test_a1111_without_polls(s):
    with txt2img(s) as start:
        start()
    assert rendered() == []


def test_a1111_with_polls_for_numbers_only(s):
    with txt2img(s) as start, s.held(50):
        start()
        at_step(s, 50)
        assert progress(s, "?skip_current_image=True")["current_image"] is None
    assert rendered() == []


def test_a1111_poll_asks_for_one_preview(s):
    with txt2img(s) as start, s.held(5):
        start()
        at_step(s, 5)
        for _ in range(3):
            assert progress(s)["current_image"] is None  # none is due
        assert rendered() == []
    assert rendered() == [(0, 12)]
    with txt2img(s) as start, s.held(50):
        start()
        at_step(s, 50)
        image = eventually(lambda: progress(s)["current_image"], what="a preview")
        assert is_png(base64.b64decode(image), 64)
        for _ in range(3):
            assert progress(s)["current_image"] == image
        assert rendered() == [(0, 50)]
    assert len(rendered()) == 1


main(globals())
