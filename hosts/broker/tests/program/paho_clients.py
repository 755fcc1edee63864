"""Tests a broker with paho-mqtt: python3 paho_clients.py PORT... Exits with 0 on success.

The ports are those of the nodes of a cluster: each client connects to another one than the client
before it.
"""

import itertools
import queue
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORTS = [int(port) for port in sys.argv[1:]]
PORT = itertools.cycle(PORTS)
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}


def settle():
    """Lets all nodes know what one of them has acknowledged."""
    if len(PORTS) > 1:
        time.sleep(0.05)


class Client:
    """A paho client whose messages and answers can be waited for."""

    def __init__(self, name, version, clean=True, expiry=0, will=None):
        self.v5 = version == mqtt.MQTTv5
        options = {} if self.v5 else {"clean_session": clean}
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=version, **options)
        self.messages, self.answers = queue.Queue(), queue.Queue()

        def on_codes(client, data, mid, codes, properties):
            self.answers.put(codes)

        self.paho.on_message = lambda client, data, message: self.messages.put(message)
        self.paho.on_connect = lambda client, data, *answer: self.answers.put(answer)
        self.paho.on_subscribe = self.paho.on_unsubscribe = on_codes
        if will:
            self.paho.will_set(**will)
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            self.paho.connect("127.0.0.1", next(PORT), 30, clean_start=clean, properties=properties)
        else:
            self.paho.connect("127.0.0.1", next(PORT), 30)
        self.paho.loop_start()
        self.flags, self.code, self.properties = self.answers.get(timeout=5)
        assert not self.code.is_failure, self.code

    def subscribe(self, *arguments, **options):
        self.paho.subscribe(*arguments, **options)
        answer = self.answers.get(timeout=5)
        settle()
        return answer

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self.paho.publish(topic, payload, qos, retain, properties).wait_for_publish(10)
        settle()

    def receive(self, seconds=5):
        return self.messages.get(timeout=seconds)

    def receives_nothing(self):
        try:
            message = self.messages.get(timeout=0.3)
        except queue.Empty:
            return
        raise AssertionError(f"unexpected message {message.topic} {message.payload!r}")

    def disconnect(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def drop(self):
        """Ends the connection without a DISCONNECT."""
        self.paho.loop_stop()
        self.paho.socket().close()


def each_qos(name, version):
    subscriber, publisher = Client(f"{name}-s", version), Client(f"{name}-p", version)
    for asked in range(3):
        assert [code.value for code in subscriber.subscribe(f"{name}/{asked}/#", asked)] == [asked]
        for qos in range(3):
            publisher.publish(f"{name}/{asked}/x", f"{asked}{qos}", qos)
            message = subscriber.receive()
            expected = (f"{asked}{qos}".encode(), min(asked, qos))
            assert (message.payload, message.qos) == expected, message
    subscriber.paho.unsubscribe(f"{name}/0/#")
    subscriber.answers.get(timeout=5)
    publisher.publish(f"{name}/0/x", "no more", 1)
    subscriber.receives_nothing()
    subscriber.disconnect(), publisher.disconnect()


def retained(name, version):
    client = Client(f"{name}-r", version)
    client.publish(f"{name}/retained", "kept", 1, retain=True)
    client.subscribe(f"{name}/+", 1)
    message = client.receive()
    assert (message.payload, message.retain) == (b"kept", True)
    client.publish(f"{name}/retained", "live", 1, retain=True)
    assert not client.receive().retain
    client.publish(f"{name}/retained", "", 1, retain=True)
    assert client.receive().payload == b""
    client.paho.unsubscribe(f"{name}/+")
    client.answers.get(timeout=5)
    client.subscribe(f"{name}/+", 1)
    client.receives_nothing()
    client.disconnect()


def will(name, version):
    watcher = Client(f"{name}-watcher", version)
    watcher.subscribe(f"{name}/will", 2)
    testament = {"topic": f"{name}/will", "payload": "gone", "qos": 2}
    Client(f"{name}-polite", version, will=testament).disconnect()
    watcher.receives_nothing()
    Client(f"{name}-lost", version, will=testament).drop()
    assert watcher.receive().payload == b"gone"
    first = Client(f"{name}-twice", version, will=testament)
    second = Client(f"{name}-twice", version)
    assert watcher.receive().payload == b"gone", "taken over"
    first.paho.loop_stop(), second.disconnect(), watcher.disconnect()


def session(name, version):
    def connect():
        return Client(f"{name}-away", version, clean=False, expiry=300)

    client = connect()
    assert not client.flags.session_present
    client.subscribe(f"{name}/session", 2)
    client.drop()
    publisher = Client(f"{name}-p", version)
    time.sleep(0.1)
    for number in range(20):
        publisher.publish(f"{name}/session", str(number), number % 3)
    client = connect()
    assert client.flags.session_present == (version != mqtt.MQTTv31)
    # paho delivers a QoS 2 message on PUBREL, so the order holds for each QoS.
    expected = {qos: [str(n).encode() for n in range(20) if n % 3 == qos] for qos in (1, 2)}
    got = [client.receive() for _ in expected[1] + expected[2]]
    assert {qos: [m.payload for m in got if m.qos == qos] for qos in (1, 2)} == expected
    client.receives_nothing()
    client.disconnect(), publisher.disconnect()
    Client(f"{name}-away", version).disconnect()


def large(name, version):
    client = Client(f"{name}-large", version)
    client.subscribe(f"{name}/large", 2)
    # A packet has at most 1 MiB in a cluster.
    payload = bytes(range(256)) * (65_536 if len(PORTS) == 1 else 4_000)
    client.publish(f"{name}/large", payload, 2)
    assert client.receive(20).payload == payload
    client.disconnect()


def properties(name, version):
    if version != mqtt.MQTTv5:
        return
    client = Client(f"{name}-properties", version)
    subscription = Properties(PacketTypes.SUBSCRIBE)
    subscription.SubscriptionIdentifier = 7
    options = SubscribeOptions(qos=1, noLocal=False, retainAsPublished=True)
    client.subscribe([(f"{name}/#", options)], properties=subscription)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("b", "2"), ("a", "1"), ("b", "3")]
    texts = ("answer/here", b"\0\1", "text/plain")
    sent.ResponseTopic, sent.CorrelationData, sent.ContentType = texts
    sent.PayloadFormatIndicator, sent.MessageExpiryInterval, sent.TopicAlias = 1, 60, 3
    for topic in (f"{name}/x", ""):
        # Some releases of paho refuse an empty topic name with an alias.
        try:
            client.publish(topic, "p", 1, True, sent)
        except ValueError:
            continue
        message = client.receive()
        got = message.properties
        assert (message.topic, message.retain) == (f"{name}/x", True)
        assert got.UserProperty == sent.UserProperty and got.SubscriptionIdentifier == [7], got
        assert (got.ResponseTopic, got.CorrelationData, got.ContentType) == texts
        assert got.PayloadFormatIndicator == 1 and got.MessageExpiryInterval in (59, 60)
        assert not hasattr(got, "TopicAlias")
    client.publish(f"{name}/x", "", 0, True)
    client.disconnect()
    nameless = Client("", version)
    assert nameless.properties.AssignedClientIdentifier
    nameless.disconnect()


for label, version in VERSIONS.items():
    for check in (each_qos, retained, will, session, large, properties):
        check(f"{check.__name__}{label.replace('.', '')}", version)
        print(f"{label} {check.__name__}: ok", flush=True)
