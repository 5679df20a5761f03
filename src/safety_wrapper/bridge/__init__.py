"""Where the gateway and the administrator meet the engine: two sockets, their verbs, one adapter per gateway hook.

``wire`` the request shapes · ``agent`` and ``admin`` the verbs · ``gateway/`` the adapters, each beside the gateway's
own failure rule · ``shim/`` the JavaScript that runs inside the gateway · ``openclaw`` installs and checks it.
"""
