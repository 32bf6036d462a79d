"""Models that say what they know: the vocabulary in the capabilities, and warnings about prompts of other things."""
import json
import os
import subprocess
import tempfile

from harness import PROGRAM, Server, main

WORDS = {
    "format": 1, "languages": ["en", "de"],
    "nouns": [{"name": "cat", "category": "animals", "words": ["cat", "cats"], "languages": {"de": ["katze"]},
               "example": "a cat in the snow"},
              {"name": "hat", "category": "clothes", "words": ["hat"]}],
    "shapes": [{"name": "star", "words": ["star", "stars"]}],
    "other_words": ["a", "in", "the", "snow"],
}
WARNING = "the model knows nothing that the prompt names, so it draws something else; it knows cat, hat or star"


def folder(text):
    path = tempfile.mkdtemp(prefix="wordy")
    with open(os.path.join(path, "vocabulary.json"), "w") as f:
        f.write(text)
    return path


def server(words=WORDS, **args):
    return Server("--model", folder(json.dumps(words)), **args)


def test_capabilities():
    s = server()
    assert s.get("/v1/capabilities").json["vocabulary"] == WORDS
    assert "vocabulary" not in s.get("/v1/capabilities?vocabulary=false").json
    answer = s.get("/v1/capabilities?vocabulary=perhaps")
    assert (answer.status, answer.json["error"]["param"]) == (400, "vocabulary"), answer.body
    s.close()
    s = Server()
    assert s.get("/v1/capabilities").json["vocabulary"] is None
    s.close()


def test_of_several_models():
    """Each has its own, also before it is loaded."""
    listing = os.path.join(tempfile.mkdtemp(), "models")
    with open(listing, "w") as f:
        f.write("[plain]\nmodel = fake\n[wordy]\nmodel = %s\n" % folder(json.dumps(WORDS)))
    s = Server("--models-file", listing)
    assert s.get("/v1/capabilities?model=plain").json["vocabulary"] is None
    assert s.get("/v1/capabilities?model=wordy").json["vocabulary"] == WORDS
    for model, count in (("plain", 0), ("wordy", 1)):
        answer = s.draw("a bat", model=model, response_format="url")
        assert len(answer.json["warnings"]) == count, answer.body
    assert s.get("/v1/capabilities?model=wordy").json["vocabulary"] == WORDS
    s.close()


def test_every_api_warns():
    s = server()
    job = s.post("/v1/jobs", {"prompt": "a bat", "size": 64}).json
    assert job["warnings"] == [WARNING], job
    assert s.wait_job(job["id"])["warnings"] == [WARNING]
    assert s.draw("a bat", response_format="url").json["warnings"] == [WARNING]
    assert WARNING[1:] in s.post("/sdapi/v1/txt2img", {"prompt": "a bat", "steps": 2}).json["info"]
    for prompt in ("a cat", "eine Katze", "in the snow"):
        assert s.post("/v1/jobs", {"prompt": prompt, "size": 64}).json["warnings"] == [], prompt
    s.close()


def test_stored():
    """The warning of a job outlives the process."""
    args = ("--model", folder(json.dumps(WORDS)))
    s = Server(*args, data=tempfile.mkdtemp())
    job = s.post("/v1/jobs", {"prompt": "a bat", "size": 64}).json
    s.wait_job(job["id"])
    s.close()
    s = Server(*args, data=s.folder)
    assert s.get("/v1/jobs/" + job["id"]).json["warnings"] == [WARNING]
    s.close()


def test_malformed():
    for text in ("{", '{"format": 9, "nouns": []}', '{"format": 1}'):
        done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory", "--model", folder(text)],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "vocabulary.json" in done.stderr, done


if __name__ == "__main__":
    main(globals())
