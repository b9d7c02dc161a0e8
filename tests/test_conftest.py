"""The guards of the test suite guard."""

from __future__ import annotations

import socket
import urllib.request

import anndata as ad
import pytest


def send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        plug.sendto(b"x", ("127.0.0.1", 9))


@pytest.mark.parametrize(
    "use_the_network",
    [
        lambda: socket.create_connection(("192.0.2.1", 9), timeout=1),
        send,
        lambda: socket.getaddrinfo("example.org", 80),
        lambda: urllib.request.urlopen("http://example.org", timeout=1),
    ],
    ids=["connect", "send", "look up a name", "fetch a page"],
)
def test_the_network_is_out_of_reach(use_the_network):
    with pytest.raises(pytest.fail.Exception, match="the network was used"):
        use_the_network()


def test_the_semantics_of_anndata_0_13():
    if "copy_on_write_X" in dir(ad.settings):
        assert ad.settings.copy_on_write_X
