"""Dagster's UI answers its own pages under its own names, and no page of a stranger's in the same browser."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.daemon import Place, free_port, user_interface
from dagster_project.operations.browsers import OwnPagesOnly
from tests.conftest import make_lab


def client(hosts: Sequence[str] = ()) -> TestClient:
    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("secret")
        await websocket.close()

    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("secret")

    routes = [Route("/", page, methods=["GET", "POST"]), WebSocketRoute("/graphql", greet)]
    return TestClient(OwnPagesOnly(Starlette(routes=routes), hosts))


OWN = [
    {"host": "127.0.0.1:3000"},
    {"host": "localhost:3000"},
    {"host": "LocalHost"},
    {"host": "[::1]:3000"},
    {"host": "localhost:3000", "origin": "http://localhost:3000"},
]
FOREIGN = {
    "rebound name": {"host": "evil.example:3000"},
    "rebound name with its page": {"host": "evil.example:3000", "origin": "http://evil.example:3000"},
    "name that begins alike": {"host": "localhost.evil.example"},
    "name that ends alike": {"host": "evillocalhost"},
    "user in the name": {"host": "localhost@evil.example"},
    "path in the name": {"host": "localhost/evil.example"},
    "address of all": {"host": "0.0.0.0:3000"},
    "no name": {"host": ""},
    "page across sites": {"host": "localhost:3000", "origin": "http://evil.example"},
    "page of another port": {"host": "localhost:3000", "origin": "http://localhost:8000"},
    "page of no site": {"host": "localhost:3000", "origin": "null"},
    "file": {"host": "localhost:3000", "origin": "file://"},
    "user in the origin": {"host": "localhost:3000", "origin": "http://localhost:3000@evil.example"},
    "broken name": {"host": "[::1"},
}


@pytest.mark.parametrize("headers", OWN)
def test_own_pages_are_answered(headers: dict[str, str]) -> None:
    asked = client()
    assert asked.get("/", headers=headers).text == "secret"
    with asked.websocket_connect("/graphql", headers=headers) as websocket:
        assert websocket.receive_text() == "secret"


@pytest.mark.parametrize("name", FOREIGN)
def test_pages_of_strangers_are_refused(name: str) -> None:
    asked = client()
    for answer in (asked.get("/", headers=FOREIGN[name]), asked.post("/", headers=FOREIGN[name])):
        assert answer.status_code == 403 and "secret" not in answer.text
    with pytest.raises(WebSocketDisconnect), asked.websocket_connect("/graphql", headers=FOREIGN[name]):
        pass


def test_two_host_headers_are_refused() -> None:
    assert client().get("/", headers=[("host", "localhost"), ("host", "evil.example")]).status_code == 403


def test_a_further_name_can_be_allowed() -> None:
    asked = client(["Lab.example"])
    assert asked.get("/", headers={"host": "lab.example"}).status_code == 200
    assert asked.get("/", headers={"host": "localhost:3000", "origin": "https://lab.example"}).status_code == 200
    assert asked.get("/", headers={"host": "x.lab.example"}).status_code == 403


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_ui_refuses_other_names(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    with user_interface(Place(lab.directory, lab.environment), "small.yaml", free_port()) as (url, _):
        found = {}
        for host in ("127.0.0.1", "localhost", "evil.example"):
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=30)
            connection.request("GET", "/server_info", headers={"Host": f"{host}:{urlsplit(url).port}"})
            found[host] = connection.getresponse().status
        assert found == {"127.0.0.1": 200, "localhost": 200, "evil.example": 403}
