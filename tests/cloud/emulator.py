"""emulator.py PORT: Amazon EC2 for the tests, on 127.0.0.1: moto with patches.py, and before it what a cloud does to its callers.

POST /_new {"quota": 5, "type": "m5.large"}: an empty account with an instance; the answer has the ids.
POST /_allocate, /_assign, /_lead, /_route, /_delete, /_replace: what somebody else does. POST /_state: all that there is.
POST /_set: throttle (part of calls), stale (seconds), deny (actions), down, hold ([number of the changing call, "before" or "after"]),
page (actions that a proxy's page answers), endless (one page follows the other), stopped (where routes lead no machine runs), hang (seconds
before each answer), refuse (an address that EC2 refuses),
busy (actions that are always too many).
POST /_told: all calls to EC2 so far, each with the code of its error, and what is wrong with its form.
Also the metadata service of the instance (version 2), and STS's web identities."""

import io
import json
import os
import random
import sys
import threading
import time
from urllib.parse import parse_qsl

# Thousands of images take a second for each account.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"

import botocore.session
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from moto.backends import get_backend
from moto.core.parse import EC2QueryParser
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import patches

REGION, ACCOUNT = "eu-central-1", "123456789012"
MODEL = botocore.session.get_session().get_service_model("ec2")
ERROR = "<?xml version='1.0'?><Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>1</RequestID></Response>"
PAGE = "<!DOCTYPE html><html><head><title>Network login</title></head><body><p>Log in first.</p></body></html>"
TOKEN = "a-token"


def wrong(action, form):
    """What AWS's own model of the API says against the form: it is read, checked, written again, and has to be the same."""
    operation = MODEL.operation_model(action)
    parsed = EC2QueryParser(operation).parse({"values": form})
    report = ParamValidator().validate(parsed, operation.input_shape)
    if report.has_errors():
        return report.generate_report()
    again = create_serializer("ec2").serialize_to_request(parsed, operation)["body"]
    del again["Action"], again["Version"]
    same = {name: str(value).lower() for name, value in again.items()} == {name: value.lower() for name, value in form.items()}
    return None if same else f"{form} is {again}"


class Front:
    """The WSGI application."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.RLock()
        self.fresh()

    def fresh(self):
        self.calls, self.changes, self.seen, self.samples, self.ids = [], 0, {}, [], {}
        self.settings = {"throttle": 0, "stale": 0, "deny": [], "down": False, "hold": None, "page": [], "endless": False, "stopped": False, "hang": 0, "refuse": None, "busy": []}
        self.epoch = getattr(self, "epoch", 0) + 1

    def __call__(self, environ, start):
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if path.startswith("/_"):
            code, text = "200 OK", json.dumps(getattr(self, path[2:])(json.loads(body or b"{}")))
        elif path.startswith("/latest/"):
            code, text = self.metadata(environ, path.removeprefix("/latest/"))
        else:
            code, text = self.api(environ, body)
        start(code, [("Content-Type", "text/xml"), ("Content-Length", str(len(text.encode())))])
        return [text.encode()]

    def new(self, wishes):
        with self.lock:
            get_backend("ec2")[ACCOUNT][REGION].reset()
            self.fresh()
            patches.quota = wishes.get("quota", 5)
            self.ids = account(wishes.get("type", "m5.large"))
            self.calls.clear()
            self.changes, self.samples, self.seen = 0, [], {}
            return self.ids

    def set(self, settings):
        self.settings.update(settings)
        return {}

    def told(self, _):
        return self.calls

    def state(self, _):
        """All that there is, as the account's owner sees it."""
        ec2 = get_backend("ec2")[ACCOUNT][REGION]
        tags = lambda thing: {tag["key"]: tag["value"] for tag in thing.get_tags()}
        nic = lambda eni: {
            "addresses": [held["PrivateIpAddress"] for held in eni.private_ip_addresses],
            "check": eni.source_dest_check,
            "tags": tags(eni),
        }
        elastic = lambda eip: {"nic": eip.eni and eip.eni.id, "private": eip.private, "tags": tags(eip)}
        routes = [route for route in ec2.get_route_table(self.ids["table"]).routes if route.destination_cidr_block == "0.0.0.0/0"]
        target = lambda route: (route.interface or route.gateway).id
        return {
            "nics": {eni.id: nic(eni) for eni in ec2.enis.values()},
            "elastic": {eip.allocation_id: elastic(eip) for eip in ec2.addresses},
            "route": target(routes[0]) if routes else None,
        }

    def allocate(self, wishes):
        """Elastic addresses of somebody else: so many, with tags, or leading to an address."""
        ec2 = get_backend("ec2")[ACCOUNT][REGION]
        made = [ec2.allocate_address("vpc", tags=wishes.get("tags")) for _ in range(wishes.get("count", 1))]
        for eip, (nic, private) in zip(made, wishes.get("lead", [])):
            patches.lead(eip, ec2.get_network_interface(nic), private)
        return [eip.allocation_id for eip in made]

    def assign(self, wishes):
        """Addresses that somebody else has assigned."""
        get_backend("ec2")[ACCOUNT][REGION].assign_private_ip_addresses(wishes["nic"], wishes["addresses"])

    def lead(self, wishes):
        ec2 = get_backend("ec2")[ACCOUNT][REGION]
        ec2.disassociate_address(association_id=ec2.address_by_allocation([wishes["id"]])[0].association_id)
        patches.lead(ec2.address_by_allocation([wishes["id"]])[0], ec2.get_network_interface(wishes["nic"]), wishes["private"])

    def route(self, wishes):
        get_backend("ec2")[ACCOUNT][REGION].replace_route(self.ids["table"], "0.0.0.0/0", interface_id=wishes["nic"])

    def delete(self, wishes):
        """A network interface that somebody else deletes, as with its instance."""
        ec2 = get_backend("ec2")[ACCOUNT][REGION]
        eni = ec2.get_network_interface(wishes["nic"])
        for eip in [eip for eip in ec2.addresses if eip.eni is eni]:
            ec2.disassociate_address(association_id=eip.association_id)
        if eni.attachment_id:
            ec2.detach_network_interface(eni.attachment_id)
        ec2.delete_network_interface(eni.id)

    def replace(self, _):
        """The instance gets another network interface in the place of its own, which is deleted; its id."""
        ec2 = get_backend("ec2")[ACCOUNT][REGION]
        self.delete({"nic": self.ids["nic"]})
        eni = ec2.create_network_interface(ec2.get_subnet(self.ids["subnet"]), "10.0.1.11")
        ec2.attach_network_interface(eni.id, self.ids["instance"], 2)
        return eni.id

    def forward(self, environ, body):
        answer = {}

        def start(status, headers, info=None):
            answer["status"] = status

        environ = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        text = b"".join(self.moto(environ, start)).decode()
        return answer["status"], text

    def api(self, environ, body):
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = form.pop("Action", "")
        form.pop("Version", None)
        if action.startswith("AssumeRole"):
            return self.forward(environ, body)
        call = {"action": action, "form": form, "code": None, "wrong": wrong(action, form), "by": environ.get("HTTP_AUTHORIZATION", "").split("/")[0]}
        time.sleep(self.settings["hang"])
        with self.lock:
            self.calls.append(call)
            refusal = self.refusal(action, form)
            if refusal:
                call["code"] = refusal[0]
                return refusal[1], ERROR.format(refusal[0], f"{action} is not allowed here")
            if action in self.settings["page"]:
                return "200 OK", PAGE
            if action.startswith("Describe"):
                status, text = self.reading(environ, body)
                if self.settings["endless"]:
                    text = text.replace("</DescribeNetworkInterfacesResponse>", "<nextToken>next</nextToken></DescribeNetworkInterfacesResponse>")
                if self.settings["stopped"]:
                    text = text.replace("<state>active</state>", "<state>blackhole</state>")
                return status, text
            hold, self.changes = self.settings["hold"], self.changes + 1
            held = hold and hold[0] == self.changes
            self.sample()
            if held and hold[1] == "before":
                answer = None
            else:
                answer = self.forward(environ, body)
                if not answer[0].startswith("2"):
                    call["code"] = answer[1].split("<Code>")[-1].split("</Code>")[0]
        if held:
            # Who called is killed meanwhile.
            epoch, call["held"] = self.epoch, True
            while self.epoch == epoch and self.settings["hold"] == hold:
                time.sleep(0.01)
            answer = answer or ("500 Gone", "")
        return answer

    def refusal(self, action, form):
        if self.settings["down"]:
            return "Unavailable", "503 Service Unavailable"
        if action in self.settings["deny"]:
            return "UnauthorizedOperation", "403 Forbidden"
        if action == "AssignPrivateIpAddresses" and self.settings["refuse"] in form.values():
            return "InvalidParameterValue", "400 Bad Request"
        if action in self.settings["busy"] or random.random() < self.settings["throttle"]:
            return "RequestLimitExceeded", "503 Service Unavailable"
        return None

    def sample(self):
        """Before each change: what all readings say."""
        if self.settings["stale"]:
            self.samples.append((time.time(), {body: self.forward(environ, body) for body, environ in self.seen.items()}))

    def reading(self, environ, body):
        """As it was so many seconds ago."""
        self.seen[body] = environ
        for at, answers in self.samples:
            if at > time.time() - self.settings["stale"] and body in answers:
                return answers[body]
        return self.forward(environ, body)

    def metadata(self, environ, path):
        if path == "api/token":
            return ("200 OK", TOKEN) if environ["REQUEST_METHOD"] == "PUT" else ("405 Method Not Allowed", "")
        if environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != TOKEN:
            return "401 Unauthorized", ""
        roles = "meta-data/iam/security-credentials/"
        lent = {"AccessKeyId": "role", "SecretAccessKey": "secret", "Token": "session", "Expiration": "2999-01-01T00:00:00Z"}
        known = {
            "meta-data/instance-id": self.ids.get("instance", ""),
            "meta-data/placement/region": REGION,
            roles: "forwarder",
            roles + "forwarder": json.dumps(lent),
        }
        return ("200 OK", known[path]) if path in known else ("404 Not Found", "")


def account(kind):
    """A forwarder with two NICs in one subnet, the business servers' route table, and what is somebody else's."""
    ec2 = get_backend("ec2")[ACCOUNT][REGION]
    vpc = ec2.create_vpc("10.0.0.0/16")
    subnet = ec2.create_subnet(vpc.id, "10.0.1.0/24", REGION + "a")
    elsewhere = ec2.create_subnet(vpc.id, "10.0.2.0/24", REGION + "a")
    gateway = ec2.create_internet_gateway()
    ec2.attach_internet_gateway(gateway.id, vpc.id)
    table = ec2.create_route_table(vpc.id)
    ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
    eth0 = ec2.create_network_interface(elsewhere, "10.0.2.10")
    eth1 = ec2.create_network_interface(subnet, "10.0.1.10")
    other = ec2.create_network_interface(subnet, "10.0.1.20")
    instance = ec2.run_instances("ami-0123456789abcdef0", 1, "", [], instance_type=kind, is_instance_type_default=False, subnet_id=elsewhere.id, key_name=None, placement=None).instances[0]
    ec2.attach_network_interface(eth0.id, instance.id, 1)
    ec2.attach_network_interface(eth1.id, instance.id, 2)
    return {
        "instance": instance.id,
        "nic": eth1.id,
        "outside": eth0.id,
        "other": other.id,
        "table": table.id,
        "gateway": gateway.id,
        "subnet": subnet.id,
    }


PORT = int(sys.argv[1])
front = Front()
make_server("127.0.0.1", PORT, front, threaded=True).serve_forever()
