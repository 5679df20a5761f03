"""One adapter for each gateway hook that we mirror. ``GATEWAY_RULE`` says what the gateway itself does on a fault;
the adapter's answer, and the shim, are built so that our rule holds instead."""
