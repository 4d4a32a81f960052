"""What moto's EC2 lacks: an elastic address leads to one private address of a network interface, not to the network interface, and of these
a network interface has several. By the documentation of AssociateAddress, DisassociateAddress and DescribeNetworkInterfaces."""

from moto.core.responses import ActionResult
from moto.ec2 import utils
from moto.ec2.exceptions import EC2ClientError, ResourceAlreadyAssociatedError
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.responses.account_attributes import AccountAttributes
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.utils import random_eip_association_id

# How many elastic addresses the account may have.
quota = 5

ElasticAddress.private = None
ElasticAddress.private_ip_address = property(lambda eip: eip.private)


def show(eni, private, eip):
    """Lets the network interface show what leads to one of its addresses."""
    for held in eni.private_ip_addresses:
        if held["PrivateIpAddress"] == private:
            held.pop("Association", None)
            if eip:
                held["Association"] = {"PublicIp": eip.public_ip, "AllocationId": eip.allocation_id, "AssociationId": eip.association_id}


def lead(eip, eni, private):
    eip.eni, eip.private, eip.association_id = eni, private, random_eip_association_id()
    show(eni, private, eip)


def associate_address(response):
    ec2, get = response.ec2_backend, response._get_param
    eip = ec2.address_by_allocation([get("AllocationId")])[0]
    eni = ec2.get_network_interface(get("NetworkInterfaceId"))
    private = get("PrivateIpAddress", eni.private_ip_address)
    if private not in [held["PrivateIpAddress"] for held in eni.private_ip_addresses]:
        raise EC2ClientError("InvalidParameterValue", f"{private} is not an address of {eni.id}")
    others = [other for other in ec2.addresses if other is not eip and other.eni is eni and other.private == private]
    moved = eip.eni is not None and (eip.eni is not eni or eip.private != private)
    if (moved or others) and str(get("AllowReassociation", True)).lower() == "false":
        raise ResourceAlreadyAssociatedError(eip.public_ip)
    for old in [*others, *([eip] if moved else [])]:
        ec2.disassociate_address(association_id=old.association_id)
    lead(eip, eni, private)
    return ActionResult({"AssociationId": eip.association_id})


def disassociate_address(ec2, address=None, association_id=None):
    eip = (ec2.address_by_ip([address]) if address else ec2.address_by_association([association_id]))[0]
    if eip.eni:
        show(eip.eni, eip.private, None)
    eip.eni = eip.private = eip.association_id = None


allocate = ElasticAddressBackend.allocate_address


def allocate_address(ec2, *arguments, **named):
    if len(ec2.addresses) >= quota:
        raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    return allocate(ec2, *arguments, **named)


def describe_account_attributes(_):
    value = {"AttributeName": "vpc-max-elastic-ips", "AttributeValues": [{"AttributeValue": str(quota)}]}
    return ActionResult({"AccountAttributes": [value]})


matching = utils.is_filter_matching


def is_filter_matching(thing, name, wanted):
    # A filter is for any of its values; moto wants all of them.
    value = thing.get_filter_value(name)
    if isinstance(value, list) and isinstance(wanted, list):
        return any(one in wanted for one in value)
    return matching(thing, name, wanted)


filtered = NetworkInterface.get_filter_value


def get_filter_value(eni, name, method=None):
    # moto looks at the primary address alone.
    if name == "addresses.private-ip-address":
        return [held["PrivateIpAddress"] for held in eni.private_ip_addresses]
    return filtered(eni, name, method)


ElasticIPAddresses.associate_address = associate_address
ElasticAddressBackend.disassociate_address = disassociate_address
ElasticAddressBackend.allocate_address = allocate_address
AccountAttributes.describe_account_attributes = describe_account_attributes
NetworkInterface.get_filter_value = get_filter_value
utils.is_filter_matching = is_filter_matching
