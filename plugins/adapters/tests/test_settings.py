"""What the list of hosts may hold."""

import pytest
from sw_adapters.settings import Address, read_settings

from safety_wrapper.errors import ConfigError


def test_a_listed_host_is_https_unless_it_says_http():
    settings = read_settings({"hosts": ["api.example.com:443", "http://intranet.example:8080"]})
    assert set(settings.hosts) == {("https", "api.example.com", 443), ("http", "intranet.example", 8080)}
    assert settings.listed() == "api.example.com:443, http://intranet.example:8080"


def test_an_internal_host_is_listed_with_its_address():
    settings = read_settings({"hosts": ["db.example:443"], "resolve": {"db.example:443": "[fd00::1]:4433"}})
    assert settings.hosts["https", "db.example", 443].address == Address("fd00::1", 4433)


def test_a_host_that_is_an_address_is_listed_with_it():
    settings = read_settings({"hosts": ["10.0.0.5:443", "[::1]:443", "a.example:443"]})
    assert [host.address for host in settings.hosts.values()] == [Address("10.0.0.5", 443), Address("::1", 443), None]


@pytest.mark.parametrize(
    "settings",
    [
        {"hosts": ["API.example.com:443"]},
        {"hosts": ["*.example.com:443"]},
        {"hosts": ["api.example.com"]},
        {"hosts": ["api.example.com:0"]},
        {"hosts": ["api.example.com:70000"]},
        {"hosts": ["api.example.com.:443"]},
        {"hosts": ["https://api.example.com:443"]},
        {"hosts": ["api.example.com:443/path"]},
        {"hosts": ["user@api.example.com:443"]},
        {"hosts": ["[zz]:443"]},
        {"hosts": [7]},
        {"hosts": "api.example.com:443"},
        {"hosts": ["a.example:443", "a.example:443"]},
        {"hosts": [], "resolve": {"a.example:443": "127.0.0.1:1"}},
        {"hosts": ["a.example:443"], "resolve": {"a.example:443": "localhost:1"}},
        {"hosts": ["a.example:443"], "resolve": {"a.example:443": "999.0.0.1:1"}},
        {"hosts": ["a.example:443"], "resolve": ["127.0.0.1"]},
        {"hosts": [], "ca_file": "relative.pem"},
        {"hosts": [], "ca_file": "/nonexistent/ca.pem"},
        {"hosts": [], "max_response_bytes": 0},
        {"hosts": [], "max_response_bytes": True},
        {"hosts": [], "timeout_s": 1e9},
        {"hosts": [], "timeout_s": float("nan")},
        {"hosts": [], "proxy": "http://proxy.example:3128"},
    ],
)
def test_anything_else_is_refused_at_start_without_its_value(settings):
    with pytest.raises(ConfigError) as caught:
        read_settings(settings)
    assert "proxy.example" not in caught.value.message
    assert "999" not in caught.value.message


def test_the_defaults_hold():
    settings = read_settings({})
    assert (dict(settings.hosts), settings.max_response_bytes, settings.timeout_s) == ({}, 1024 * 1024, 30.0)
    assert settings.listed() == "none"
