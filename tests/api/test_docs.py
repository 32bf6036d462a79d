"""The API description matches the server's behavior."""
import re
from urllib.parse import quote

from harness import is_png, main, Server


def test_openapi_describes_every_route(s):
    api = s.get("/openapi.json").json
    assert api["openapi"] == "3.1.0"
    for path in ("/v1/images/generations", "/v1/jobs", "/v1/jobs/{id}/events", "/v1/capabilities",
                 "/sdapi/v1/txt2img", "/healthz", "/metrics"):
        assert path in api["paths"], path
    job = api["components"]["schemas"]["CreateJobRequest"]
    assert job["required"] == [] and job["additionalProperties"] is False
    picture = api["components"]["schemas"]["CreateImageRequest"]
    assert picture["required"] == ["prompt"]
    # What has a meaning beside an input image only is not told where there is none.
    for name, schema in api["components"]["schemas"].items():
        if not name.endswith("Request"):
            continue
        fields = schema["properties"]
        takes = "image" in fields or "init_images" in fields
        assert takes or not {"strength", "scale", "mask"} & set(fields), name
    types = api["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(types) == {"application/json", "multipart/form-data"}
    types = api["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]
    assert set(types) == {"application/json"}
    assert job["properties"]["size"]["examples"] == ["auto", "64x64", "256x256", "1024x1024"]
    assert job["properties"]["preset"]["examples"] == ["fast"]
    parameters = api["paths"]["/v1/jobs/{id}"]["get"]["parameters"]
    assert parameters[0]["name"] == "id" and parameters[0]["required"]


def test_schema_and_validation_agree(s):
    """What the schema allows is accepted, one past it is refused; for every field with a range."""
    schemas = s.get("/openapi.json").json["components"]["schemas"]
    for path, name, base in (("/v1/jobs", "CreateJobRequest", {"prompt": "a", "size": 64}),
                             ("/v1/images/generations", "CreateImageRequest",
                              {"prompt": "a", "size": "64x64"})):
        for field, schema in schemas[name]["properties"].items():
            if field in ("size", "webhook_url", "deadline"):
                continue
            inner = schema.get("oneOf", [schema])[0]
            if "maximum" in inner and inner["maximum"] < 2 ** 53:
                body = {**base, field: inner["maximum"] + 1}
                a = s.post(path, body)
                assert a.status == 400 and a.json["error"]["param"] == field, (field, a.body)
            if "enum" in schema:
                a = s.post(path, {**base, field: "no such choice"})
                assert a.status == 400 and a.json["error"]["param"] == field, (field, a.body)
            if "null" in schema.get("type", []):
                # The one field that generating needs, and editing does not.
                status = (400,) if field == "prompt" else (200, 202)
                assert s.post(path, {**base, field: None}).status in status, field


def test_query_parameters_are_what_the_description_says(s):
    """What it allows is accepted, everything beyond is refused by name."""
    tried = set()
    for path, operations in s.get("/openapi.json").json["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            name, schema = parameter["name"], parameter["schema"]
            if parameter["in"] != "query" or "{" in path:
                continue
            if "boolean" in schema["type"]:
                good, bad = ["true", "false"], ["maybe", "2"]
            elif "minimum" in schema:
                good, bad = [schema["minimum"], schema["maximum"]], [schema["minimum"] - 1, schema["maximum"] + 1, "x"]
            elif "enum" in schema:
                good, bad = [choice for choice in schema["enum"] if choice], ["no such choice"]
            else:
                assert "string" in schema["type"], (path, parameter)
                continue
            tried.add(path + "?" + name)
            for value in good:
                a = s.get(f"{path}?{name}={value}")
                assert a.status == 200, (path, name, value, a.body)
            for value in bad:
                a = s.get(f"{path}?{name}={quote(str(value))}")
                if path.startswith("/v1/"):
                    assert a.status == 400 and a.json["error"]["param"] == name, (path, name, value, a.body)
                else:
                    assert a.status == 422 and name in a.json["detail"], (path, name, value, a.body)
    assert {"/v1/capabilities?vocabulary", "/v1/jobs?limit"} <= tried, tried


def test_docs_and_page(s):
    docs = s.get("/docs")
    assert docs.status == 200 and b"<code>negative_prompt</code>" in docs.body
    files = re.findall(rb'"(page/[^"]+)"', s.get("/").body)
    assert {b"page/page.css", b"page/page.js", b"page/api.js"} <= set(files), files
    for path in ("/", "/docs", *("/" + name.decode() for name in files)):
        a = s.get(path)
        assert a.status == 200 and "default-src 'none'" in a.headers["content-security-policy"]
        assert b"http://" not in a.body and b"https://" not in a.body, "no outside resources"
        # What a script imports is loaded with the page, not one after the other.
        for name in re.findall(rb'from "[.]/([^"]+)"', a.body):
            assert b"page/" + name in files, (path, name)
    for path in ("/page/", "/page/none.js", "/page/page.jx", "/page/index.html/x", "/page/..%2fpage.js"):
        assert s.get(path).status == 404, path


main(globals())
