"""Plays clients with mqtt-sn-12 of PyPI: python3 pypi.py SN_PORT MQTT_PORT.

The gateway must know the predefined topic 7=pre/seven. Fails if a message is missing.
"""

import sys
import time

import paho.mqtt.client as mqtt
from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener

sn_port, mqtt_port = int(sys.argv[1]), int(sys.argv[2])
arrived = []  # At the broker.


def wait(what, holds, step=lambda: None):
    end = time.time() + 10
    while not holds():
        assert time.time() < end, f"{what}: {arrived}"
        step()
        time.sleep(0.02)


class Listener(MqttSnListener):
    def __init__(self):
        self.received = []

    def message_arrived(self, msg):
        self.received.append((msg.get_topic_name(), bytes(msg.get_payload())))


def client(client_id, clean_session=True, keep_alive=30):
    client = MqttSnClient()
    client.set_client_id(client_id)
    client.set_clean_session(clean_session)
    client.set_keep_alive(keep_alive)
    client.set_timeout(5)
    client.open("127.0.0.1", sn_port)
    return client


subscribed = []
watcher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
watcher.on_message = lambda _, __, message: arrived.append((message.topic, message.payload))
watcher.on_subscribe = lambda *_: subscribed.append(1)
watcher.connect("127.0.0.1", mqtt_port)
watcher.subscribe([("py/#", 2), ("t4", 2), ("pre/#", 2)])
watcher.loop_start()
wait("SUBACK", lambda: subscribed)

search = client("py-search")
search.send_search_gateway(0)
search.send_publish_predefined(7, b"minus one", -1)
wait("QoS -1", lambda: ("pre/seven", b"minus one") in arrived)

publisher = client("py-publisher")
publisher.send_connect()
for qos in (0, 1, 2):
    publisher.send_publish("py/room", b"%d" % qos, qos)
publisher.send_publish("t4", b"short", 1)
publisher.send_publish_predefined(7, b"predefined", 1)
expected = [("py/room", b"0"), ("py/room", b"1"), ("py/room", b"2")]
expected += [("t4", b"short"), ("pre/seven", b"predefined")]
wait("QoS 0, 1, 2", lambda: all(message in arrived for message in expected))

# It acknowledges no message with QoS 1, so it subscribes with QoS 0.
sleeper, listener = client("py-sleeper", clean_session=False), Listener()
sleeper.send_connect()
sleeper.send_subscribe("py/+/set", 0, listener)
publisher.send_publish("py/1/set", b"awake", 1)
wait("delivery", lambda: ("py/1/set", b"awake") in listener.received, sleeper.polling)
sleeper.send_disconnect(60)
publisher.send_publish("py/2/set", b"asleep", 1)
wait("buffered", lambda: ("py/2/set", b"asleep") in arrived)
assert ("py/2/set", b"asleep") not in listener.received
sleeper.send_connect()
wait("wake", lambda: ("py/2/set", b"asleep") in listener.received, sleeper.polling)
sleeper.send_unsubscribe("py/+/set")
sleeper.send_disconnect(0)

mortal = client("py-mortal", keep_alive=1)
mortal.set_will("py/will", "lost", 1, False)
mortal.send_connect()
mortal.send_will_message_update("changed")
wait("Will", lambda: ("py/will", b"changed") in arrived)
assert ("py/will", b"lost") not in arrived

publisher.send_disconnect(0)
for each in (search, publisher, sleeper, mortal):
    each.close()
