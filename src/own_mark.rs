//! What egressd sends on its own account bears a mark: where all programs of the host are bound to exits, it is none of them.

use socket2::SockRef;

use crate::contract::OWN_MARK;

/// Marks a socket before it sends. Who may not mark has bound nobody either.
pub fn mark(socket: SockRef<'_>) {
    let _ = socket.set_mark(OWN_MARK);
}
