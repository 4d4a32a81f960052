//! The page: one document, put together when the program is built, and its Content-Security-Policy.

use std::sync::LazyLock;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = concat!(include_str!("page/model.js"), include_str!("page/view.js"), include_str!("page/main.js"));
const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/page.css"),
    "</style>\n</head>\n",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/model.js"),
    include_str!("page/view.js"),
    include_str!("page/main.js"),
    "</script>\n</body>\n</html>\n"
);

/// Nothing is loaded from anywhere, only this very style and script are used, and only this server is asked.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// The source expression of an inline text, as CSP level 2 has it.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The page.
pub(super) async fn page() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY.as_str())], PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::datapath::drops;

    #[test]
    fn the_policy_is_for_the_style_and_script_of_the_document() {
        for (element, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert!(PAGE.contains(&format!("<{element}>{text}</{element}>")), "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        // Of RFC 6234's abc, by `openssl dgst -sha256 -binary | base64`.
        assert_eq!(hash("abc"), "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='");
    }

    #[test]
    fn the_page_has_a_sentence_for_each_reason_of_a_drop() {
        let limits = [drops::SERVER_LIMIT, drops::CLIENT_LIMIT];
        for reason in
            [drops::GUARD, drops::NO_EXIT, drops::SEAL, drops::FOREIGN_MARK, drops::DEPARTED, drops::SPOOFED].into_iter().chain(limits)
        {
            assert!(SCRIPT.contains(&format!("\n  {reason}: \"")), "{reason}");
        }
    }
}
