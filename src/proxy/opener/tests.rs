//! The thread outlives what is done on it.

use super::*;
use crate::effects::enter::tests::another;

#[tokio::test]
async fn the_opener_goes_on_after_a_panic() {
    let (file, path) = another();
    let id = NamespaceId::from(file.metadata().unwrap());
    let opener = Opener::start().unwrap();
    let failed = opener.enter(path.clone(), id, || -> io::Result<()> { panic!("an injected fault") }).await;
    assert!(failed.unwrap_err().to_string().contains("an injected fault"));
    assert_eq!(opener.enter(path, id, NamespaceId::own).await.unwrap(), id);
}
