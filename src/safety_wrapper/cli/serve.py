"""The processes, started in the foreground: the core, the runner, the waker, or all of them."""

from __future__ import annotations

import os

import click

from safety_wrapper.cli import admin


@click.command()
def serve() -> None:
    """Run the core: decide, record, ask.

    Serves agent.sock and admin.sock until it gets SIGTERM. Normally started by systemd or by `up`.

    \b
    Example:
      safety-wrapper serve
    """
    from safety_wrapper import serve as process
    from safety_wrapper.runner import preload

    config = admin.settings()
    # Before the uid is given up: afterwards the interpreter's own folder may be closed to us.
    preload()
    process.run(config, process.load_plugins(config))


@click.group()
def runner() -> None:
    """The process that runs commands."""


@runner.command(name="run")
def runner_run() -> None:
    """Run commands for the core, each in its own sandbox.

    Started as root it takes its cgroup and becomes the runner's own user for good; it never runs anything as root.

    \b
    Example:
      safety-wrapper runner run
    """
    from safety_wrapper import identity
    from safety_wrapper import runner as process
    from safety_wrapper.runner import cgroup

    config = admin.settings()
    process.preload()
    if os.getuid() == 0:
        who = identity.resolve(config.users).runner
        cgroup.delegate(who.uid)
        identity.become(who)
    process.serve(config)


@click.command()
def up() -> None:
    """Start all processes and watch them.

    Starts as root: each process drops to its own user. Otherwise all run as the present user, and `status` says what
    that weakens.

    \b
    Example:
      safety-wrapper up
    """
    from safety_wrapper import supervisor

    supervisor.up(admin.settings(), lambda line: click.echo(line, err=True))


@click.command()
def waker() -> None:
    """Wake agents whose request was decided.

    Holds the gateway's token, which no other process of ours holds.

    \b
    Example:
      safety-wrapper waker
    """
    from safety_wrapper.bridge import waker as process

    process.main(admin.settings())
