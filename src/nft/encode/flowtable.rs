//! Flowtables as netlink attributes.

use crate::nft::Flowtable;
use crate::nft::uapi::*;
use crate::wire::Message;

pub(super) fn write(w: &mut Message, table: &str, name: &str, flowtable: &Flowtable) {
    w.put_text(NFTA_FLOWTABLE_TABLE, table);
    w.put_text(NFTA_FLOWTABLE_NAME, name);
    w.nest(NFTA_FLOWTABLE_HOOK, |w| {
        w.put_be32(NFTA_FLOWTABLE_HOOK_NUM, NF_NETDEV_INGRESS);
        w.put_be32(NFTA_FLOWTABLE_HOOK_PRIORITY, flowtable.priority as u32);
        if !flowtable.devices.is_empty() {
            w.nest(NFTA_FLOWTABLE_HOOK_DEVS, |w| flowtable.devices.iter().for_each(|device| w.put_text(NFTA_DEVICE_NAME, device)));
        }
    });
    w.put_be32(NFTA_FLOWTABLE_FLAGS, NFT_FLOWTABLE_COUNTER);
}
