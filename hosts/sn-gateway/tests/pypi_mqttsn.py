"""Publishes with mqttsn of PyPI: python3 pypi_mqttsn.py SN_PORT MQTT_PORT. Fails if a message is
missing.

Version 0.0.4 is half a port from Python 2: names are bytes in some places, it fails on each message
that it receives and on DISCONNECT, and it has no Will and no sleep. So it only publishes here.
"""

import sys
import time

import paho.mqtt.client as mqtt
from mqttsn.client import Callback, Client, publish

sn_port, mqtt_port = int(sys.argv[1]), int(sys.argv[2])
arrived, subscribed = [], []


def wait(what, holds):
    end = time.time() + 10
    while not holds():
        assert time.time() < end, f"{what}: {arrived}"
        time.sleep(0.02)


watcher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
watcher.on_message = lambda _, __, message: arrived.append((message.topic, message.payload))
watcher.on_subscribe = lambda *_: subscribed.append(1)
watcher.connect("127.0.0.1", mqtt_port)
watcher.subscribe("#", 2)
watcher.loop_start()
wait("SUBACK", lambda: subscribed)

client = Client(b"py-mqttsn", "127.0.0.1", sn_port)
callback = Callback()
callback.acknowledged = []
callback.published = callback.acknowledged.append
client.register_callback(callback)
client.connect()
topic = client.register(b"py/room")
assert client.subscribe("py/other", 1)[0] == 0
for qos in (0, 1, 2):
    number = client.publish(topic, b"%d" % qos, qos)
    wait(f"QoS {qos}", lambda: ("py/room", b"%d" % qos) in arrived)
    wait("acknowledgement", lambda: qos == 0 or number in callback.acknowledged)
client.publish("t4", b"short")
wait("short topic", lambda: ("t4", b"short") in arrived)
publish("t4", b"minus one", port=sn_port, host="127.0.0.1")
wait("QoS -1", lambda: ("t4", b"minus one") in arrived)
assert len(arrived) == 5, arrived
