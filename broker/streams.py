"""Event streams: who listens, and which events each listener may see.

An event reaches a listener that is judged when policy allows it ``admin.Events`` ``+EVENT`` on the qube that
the event speaks of; under strict visibility also only when the values in it may be read, and ``domain-add``
and ``domain-delete`` then tell of a qube's coming into and going out of the listener's view, for whatever
reason. An event costs the same for each listener however many qubes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from broker.facts import Facts
from broker.judge import Ground, PolicyInForce
from broker.wire import ESTABLISHED, encode_event
from policy_engine import Policy, PolicyError, World
from qubesd.api.method import EventRows, Guard
from qubesd.core.statistics import QubeStatistics
from qubesd.events import (
    Event,
    QubeAdded,
    QubeChanged,
    QubeRemoved,
    QubeRemovedFromDisk,
    SystemChanged,
    SystemRestored,
    WireEvent,
)
from qubesd.model.state import DOM0, Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core


class Stand(NamedTuple):
    """What is judged by: a policy, or what keeps it from loading, and a world."""

    policy: Policy | PolicyError
    world: World

    def ground(self, listener: Listener) -> Ground:
        return Ground(self.policy, self.world, listener.source or DOM0)


class Listener:
    """One stream. ``subject`` is the qube it is about, ``None`` for everything; ``source`` the caller it is
    judged as, ``None`` for dom0, which sees all. Both are bound to the qube that had the name when the stream
    began. ``strict`` says whether it is shown only what it may read value by value, and follows its view."""

    __slots__ = (
        *("_early", "_hang_up", "_streams", "_write"),
        *("read", "seen", "source", "statistics", "strict", "subject", "uuids"),
    )

    def __init__(
        self,
        streams: Streams,
        subject: Qube | None,
        source: Qube | None,
        read: str,
        strict: bool,
        statistics: bool,
    ) -> None:
        self.subject = None if subject is None else subject.name
        self.source = None if source is None else source.name
        self.read = read
        self.strict = strict
        self.statistics = statistics
        self._early: list[bytes] = []
        self.uuids = {qube.name: qube.uuid for qube in (subject, source) if qube is not None}
        self.seen: set[str] = set()
        self._streams = streams
        self._write: Callable[[bytes], None] = self._early.append
        self._hang_up: Callable[[], None] = _nothing

    def attach(self, write: Callable[[bytes], None], hang_up: Callable[[], None]) -> None:
        """Send the messages there from now on, the first at once; ``hang_up`` ends the stream."""
        self._write, self._hang_up = write, hang_up
        write(ESTABLISHED)
        for message in self._early:
            write(message)
        self._early.clear()

    def send(self, message: bytes) -> None:
        self._write(message)

    def hang_up(self) -> None:
        self.close()
        self._hang_up()

    def close(self) -> None:
        """No more events; nothing where it is closed already."""
        self._streams.leave(self)


def _nothing() -> None:
    """Until the stream is attached to a connection."""


class Streams:
    """All open streams of one core."""

    def __init__(self, core: Core, policies: PolicyInForce, facts: Facts) -> None:
        self.listeners: dict[Listener, None] = {}
        self._core = core
        self._policies = policies
        self._facts = facts
        self._stand = Stand(policies.now, facts.world())
        self._departed: dict[str, Stand] = {}
        self._bereft: dict[Listener, World] = {}
        """Those whose subject is gone, with the world in which it was there: its last event is still to
        come."""
        core.bus.subscribe(Event, self._tell)

    def open(
        self,
        subject: Qube | None,
        source: Qube | None,
        guard: Guard,
        strict: bool,
        statistics: bool = False,
    ) -> Listener:
        """A new stream: nothing that happens from now on is missed.

        Args:
            subject: ``None`` for the events of everything.
            source: ``None`` for a caller that is not judged.
            guard: what each event of it is judged by.
            strict: as of ``Listener``.
            statistics: carry these, beginning with the latest round, and nothing else.
        """
        if not isinstance(guard, EventRows):
            raise TypeError(f"a stream of events is guarded by {guard!r}, which says nothing of events")
        listener = Listener(self, subject, source, guard.read, strict, statistics)
        self._catch_up()
        self._stand = self._stand._replace(world=self._facts.world())
        if self._follows_view(listener):
            listener.seen = set(self._stand.ground(listener).allowed_on(guard.read, QubeAdded.kind))
        self.listeners[listener] = None
        if statistics:
            self._core.statistics.watch()
            for event in self._core.statistics.last:
                self._offer(event, (listener,), self._stand)
        return listener

    def leave(self, listener: Listener) -> None:
        """Take a listener out; nothing where it is out already."""
        if listener in self.listeners:
            del self.listeners[listener]
            if listener.statistics:
                self._core.statistics.unwatch()
        self._bereft.pop(listener, None)

    def policy_changed(self) -> None:
        """What listeners may see is another from now on; tells them at once, not only with the next event."""
        before, self._stand = self._stand, self._stand._replace(policy=self._policies.now)
        for listener in tuple(self.listeners):
            self._look_again(listener, before)

    def _catch_up(self) -> None:
        if self._policies.now is not self._stand.policy:
            self.policy_changed()

    def _tell(self, event: Event) -> None:
        if not self.listeners and not self._bereft:
            return
        self._catch_up()
        if isinstance(event, SystemRestored):
            for listener in (*self.listeners, *self._bereft):
                listener.hang_up()
        elif isinstance(event, QubeChanged | SystemChanged):
            self._changed(event.subject)
        elif isinstance(event, QubeRemovedFromDisk):
            self._take_leave(event)
        elif isinstance(event, WireEvent):
            self._publish(event)

    def _publish(self, event: WireEvent) -> None:
        stand = self._stand
        if isinstance(event, QubeRemoved):
            # What is gone is judged in the world in which it was there.
            stand = self._departed.pop(event.qube, stand)
        self._offer(event, tuple(self.listeners), stand)

    def _take_leave(self, event: QubeRemovedFromDisk) -> None:
        """After this, the streams on the qube have nothing more to tell, and stay open, as in stock."""
        for listener, world in tuple(self._bereft.items()):
            if listener.subject == event.subject:
                self._offer(event, (listener,), self._stand._replace(world=world))
                listener.close()

    def _offer(self, event: WireEvent, listeners: Iterable[Listener], stand: Stand) -> None:
        """Send an event to those of the listeners that it is for."""
        name, keys = event.wire_name, event.keys()
        message = encode_event(event.subject, name, keys)
        argument = name.replace(":", "_")
        named = dict(keys).get("vm")
        for listener in listeners:
            if listener.statistics is not isinstance(event, QubeStatistics):
                continue
            if listener.subject is not None and listener.subject != event.subject:
                continue
            if listener.source is not None:
                if listener.strict and isinstance(event, QubeAdded | QubeRemoved):
                    continue
                ground = stand.ground(listener)
                if not ground.allows(listener.read, argument, event.subject or named or DOM0):
                    continue
                if listener.strict and not _values_readable(event, named, listener.read, argument, ground):
                    continue
            listener.send(message)

    def _changed(self, subject: str | None) -> None:
        """A qube, or the system as a whole for ``None``, is not what it was: end the streams whose qubes are
        gone, and let the others follow their view."""
        before, world = self._stand, self._facts.world()
        self._stand = before._replace(world=world)
        gone = subject is not None and subject not in world
        if gone and subject is not None and subject in before.world:
            self._departed[subject] = before
        halted = subject is not None and self._core.running(subject).state == "Halted"
        for listener in (*self.listeners, *self._bereft):
            if self._uprooted(listener, before.world):
                continue
            if listener.statistics and subject is not None and subject == listener.subject and halted:
                listener.hang_up()
                continue
            if before.world is world:
                continue
            if subject is None or subject == listener.source:
                self._look_again(listener, before)
            elif self._follows_view(listener):
                visible = not gone and self._stand.ground(listener).allows(
                    listener.read, QubeAdded.kind, subject
                )
                self._move(listener, subject, visible, before)
        if not any(listener.source is not None for listener in self.listeners):
            self._departed.clear()

    def _uprooted(self, listener: Listener, before: World) -> bool:
        """End a stream whose caller is gone. One whose subject is gone waits for its last event, unless a new
        qube has the name already, which is another one."""
        qubes = self._core.system.qubes
        gone = [
            name for name, uuid in listener.uuids.items() if name not in qubes or qubes[name].uuid != uuid
        ]
        if listener.source in gone:
            listener.hang_up()
        elif any(name in qubes for name in gone) or (gone and listener.statistics):
            listener.close()
        elif gone and listener not in self._bereft:
            del self.listeners[listener]
            self._bereft[listener] = before
        return bool(gone)

    def _follows_view(self, listener: Listener) -> bool:
        everything = listener.subject is None and not listener.statistics
        return listener.strict and listener.source is not None and everything

    def _look_again(self, listener: Listener, before: Stand) -> None:
        """Judge all qubes anew for a listener."""
        if not self._follows_view(listener):
            return
        visible = self._stand.ground(listener).allowed_on(listener.read, QubeAdded.kind)
        for name in sorted(listener.seen.difference(visible)):
            self._move(listener, name, False, before)
        for name in visible:
            self._move(listener, name, True, before)

    def _move(self, listener: Listener, name: str, visible: bool, before: Stand) -> None:
        """Tell a listener of a qube that came into its view or went out of it, if it did."""
        if visible == (name in listener.seen):
            return
        if visible:
            listener.seen.add(name)
            listener.send(encode_event(None, QubeAdded.kind, (("vm", name),)))
            return
        listener.seen.discard(name)
        if before.ground(listener).allows(listener.read, QubeRemoved.kind, name):
            listener.send(encode_event(None, QubeRemoved.kind, (("vm", name),)))


def _values_readable(event: WireEvent, named: str | None, read: str, argument: str, ground: Ground) -> bool:
    """Whether the caller may read what the event says besides that it happened.

    An event of one qube that names another, such as a netvm's of its new client, tells of both.
    """
    if named is not None and event.subject is not None and not ground.allows(read, argument, named):
        return False
    return all(ground.allows(one.service, one.argument, one.qube) for one in event.reads())
