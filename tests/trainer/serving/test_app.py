"""The server: the classifier's own answers, a reason for each refusal, and limits that hold."""

import asyncio
import base64
import struct
import zlib
from concurrent.futures import Future

import cv2
import numpy as np
import pytest

from cxr_tfrecords import images
from cxr_tfrecords.reading import Reading
from tests.dicom_files import dicom_file
from tests.trainer.serving.conftest import SIZE, Client, png
from trainer.deployment.decoders import Radiograph

httpx = pytest.importorskip("httpx", reason="the server's tests ask it with httpx")
HOSTILE = "<img src=x onerror=alert(1)>.png"


def jpeg():
    pixels = cv2.imdecode(np.frombuffer(png(2, size=60), np.uint8), 0)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_header(width, height, body):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def send(client, *files, query=""):
    parts = [("files", (name, data)) for name, data in files]
    return client.post(f"/predict{query}", files=parts)


def test_answers_are_those_of_the_classifier(served, make_client):
    dicom = dicom_file(np.arange(40 * 40, dtype=np.uint16).reshape(40, 40))
    files = [("a.png", png(0)), ("b.jpg", jpeg()), ("c.dcm", dicom)]
    response = send(make_client(), *files, query="?heat_map=1&image=1")
    assert response.status_code == 200
    given = response.json()["files"]
    assert [one["name"] for one in given] == ["a.png", "b.jpg", "c.dcm"]
    assert [one["format"] for one in given] == ["PNG", "JPEG", "DICOM"]
    known = served.classifier.predict([data for _, data in files])
    names = known.class_names
    assert len(set(known.classes)) > 1
    for row, one in enumerate(given):
        assert one["class"] == known.classes[row]
        for variant, values in known.probabilities.items():
            shares = one["probabilities"][variant]
            assert list(shares) == list(names)
            np.testing.assert_allclose(list(shares.values()), values[row], atol=1e-5)
        assert one["above_threshold"] == [names[c] for c in known.above_threshold[row].nonzero()[0]]
        assert one["set"] == [names[c] for c in known.in_set[row].nonzero()[0]]
        pixels = images.decode(base64.b64decode(one["image"])).pixels
        np.testing.assert_array_equal(pixels, served.classifier.read(files[row][1])[..., 0])
        heat = images.decode(base64.b64decode(one["heat_map"])).pixels
        assert heat.shape == (SIZE, SIZE, 3)
    assert "heat_map" not in send(make_client(), ("a.png", png())).json()["files"][0]


@pytest.mark.parametrize("outside", [True, False])
def test_an_image_unlike_those_of_training_is_shown_if_the_model_can_tell(
    served, make_client, monkeypatch, outside
):
    predict = served.classifier.predict_pixels

    def telling(pixels, size):
        answers = predict(pixels, size)
        object.__setattr__(answers, "out_of_distribution", np.array([outside] * len(pixels)))
        return answers

    monkeypatch.setattr(served.classifier, "predict_pixels", telling)
    (one,) = send(make_client(), ("a.png", png())).json()["files"]
    assert one["out_of_distribution"] is outside
    assert any("unlike the images of training" in text for text in one["warnings"]) is outside


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (png()[:400], "truncated PNG"),
        (jpeg()[:300], "JPEG"),
        (b"<html><script>alert(1)</script></html>", "not an image"),
        (png_of_header(60_000, 60_000, zlib.compress(bytes(100))), "pixels are more than"),
        (png_of_header(5000, 5000, zlib.compress(bytes(9), 9)), "damaged PNG"),
        (dicom_file(np.zeros((9, 9), np.uint16), PixelData=None), "DICOM without an image"),
        (
            cv2.imencode(".png", np.full((9, 9, 3), (20, 110, 190), np.uint8))[1].tobytes(),
            "a photograph, not a radiograph",
        ),
    ],
    ids=["empty", "png", "jpeg", "html", "bomb", "short", "dicom", "photograph"],
)
def test_a_file_that_cannot_be_used_has_its_reason_and_does_not_hinder_the_next(
    make_client, data, reason
):
    bad, good = send(make_client(), (HOSTILE, data), ("good.png", png())).json()["files"]
    assert bad.keys() == {"name", "error"}
    assert bad["name"] == HOSTILE
    assert reason in bad["error"]
    assert "error" not in good


def test_a_name_is_never_used_as_a_path(make_client, tmp_path):
    path = tmp_path / "there.png"
    path.write_bytes(png())
    for name in (str(path), "../../etc/passwd", "/etc/passwd"):
        (one,) = send(make_client(), (name, b"x")).json()["files"]
        assert one == {"name": name, "error": "not an image (starts with b'x')"}


@pytest.mark.parametrize(
    ("limits", "files", "status", "message"),
    [
        ({"upload_bytes": 3000}, [("a.png", bytes(4000))], 413, "larger than 0.003 MB"),
        ({"files": 2}, [("a.png", b"x")] * 3, 400, "Too many files"),
        ({}, [], 415, "multipart/form-data"),
    ],
)
def test_limits_of_a_request(make_client, limits, files, status, message):
    response = send(make_client(**limits), *files)
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_bytes_are_counted_whatever_the_request_announces(make_client):
    sent = []

    async def body():
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for number in range(1000):
            sent.append(number)
            yield bytes(1000)

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    response = make_client(upload_bytes=3000).post("/predict", content=body(), headers=kind)
    assert response.status_code == 413


def test_large_uploads_are_not_written_to_disk(make_client, monkeypatch):
    def rollover(self):
        raise AssertionError("written to disk")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", rollover)
    (one,) = send(make_client(), ("a", bytes(3_000_000))).json()["files"]
    assert "not an image" in one["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"wrong--b", "Invalid multipart"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n', "has no file"),
    ],
)
def test_a_damaged_request_is_refused(make_client, body, message):
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    response = make_client().post("/predict", content=body, headers=kind)
    assert response.status_code == 400
    assert message in response.json()["detail"]


def test_a_full_queue_is_said_and_a_place_is_free_again(served, make_app, monkeypatch):
    app = make_app(queue=1)
    answer = served.engine.ask(served.classifier.read(png())).result(60)
    waiting: list[Future] = []

    def ask(pixels, *, heat_map):
        waiting.append(Future())
        return waiting[-1]

    async def both():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            files = {"files": ("a.png", png())}
            first = asyncio.ensure_future(client.post("/predict", files=files))
            while not waiting:
                await asyncio.sleep(0.01)
            refused = await client.post("/predict", files=files)
            waiting[0].set_result(answer)
            return await first, refused

    with monkeypatch.context() as patch:
        patch.setattr(served.engine, "ask", ask)
        answered, refused = asyncio.run(both())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "1 requests are in work" in refused.json()["detail"]
    assert answered.status_code == 200
    assert send(Client(app), ("a.png", png())).status_code == 200


def test_what_takes_too_long_is_said_and_not_computed(served, make_client, monkeypatch):
    never: Future = Future()
    monkeypatch.setattr(served.engine, "ask", lambda pixels, *, heat_map: never)
    monkeypatch.setattr(served.decoders, "decode", lambda data: Radiograph(None, "", (), ""))
    monkeypatch.setattr(Reading, "encoded", lambda self, pixels: pixels)
    response = send(make_client(timeout_s=0.2), ("a.png", png()))
    assert response.status_code == 504
    assert "within 0.2 s" in response.json()["detail"]
    assert never.cancelled()


def test_only_known_hosts_and_pages_of_this_site_are_answered(make_client):
    client = make_client()
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/health", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    response = client.post("/predict", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    # An old browser, or one at an address without TLS, says only where the page is from.
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost", 415)):
        headers = {"Origin": origin, "Host": "localhost"}
        assert client.post("/predict", headers=headers).status_code == status, origin
    # Behind a proxy with TLS the page has another host than the request.
    headers = {"Origin": "https://cxr.example", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/predict", headers=headers).status_code == 415
    assert (
        "access-control-allow-origin" not in client.get("/", headers={"Origin": "http://x"}).headers
    )


def test_page_is_whole_and_loads_nothing_from_elsewhere(make_client):
    client = make_client()
    for path in ("/", "/page.css", "/page.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "http" not in response.text.replace("http-equiv", "")
        assert "innerHTML" not in response.text
    assert "not a medical device" in client.get("/").text
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_health_model_and_openapi_describe_the_server(served, make_client, run_dir, monkeypatch):
    client = make_client()
    assert client.get("/health").json()["ready"]
    model = client.get("/model").json()
    assert (model["models"], model["image_size"]) == (["a-run"], SIZE)
    assert model["temperature"] == [served.classifier.deployment.temperature]
    assert "/a-run" not in client.get("/model").text, "the path is private"
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/model"}
    assert "multipart/form-data" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    monkeypatch.setattr(type(served.engine), "ready", False)
    assert client.get("/health").status_code == 503
