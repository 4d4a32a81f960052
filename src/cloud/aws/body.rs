//! The body of an answer, and whether it is the answer to the action at all.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::DeserializeOwned;

use crate::provider::Error;

/// An answer: the action, and what was said.
pub struct Body {
    pub action: &'static str,
    pub text: String,
}

/// The answer as a value.
///
/// # Errors
/// When it is another one, or cannot be read.
pub fn parse<T: DeserializeOwned>(body: &Body) -> Result<T, Error> {
    done(body)?;
    quick_xml::de::from_str(&body.text).map_err(|error| unreadable(body, &error.to_string()))
}

/// Whether it is the answer to the action at all: else what it does not have would be taken for what the cloud does not have.
///
/// # Errors
/// When it is something else, as the page of a proxy.
pub fn done(body: &Body) -> Result<(), Error> {
    let wanted = format!("{}Response", body.action);
    match root(&body.text) {
        Some(root) if root == wanted => Ok(()),
        Some(root) => Err(unreadable(body, &format!("the answer is `{root}`, not {wanted}; check for an HTTP proxy in between"))),
        None => Err(unreadable(body, &format!("the answer is not {wanted}; check for an HTTP proxy in between"))),
    }
}

fn unreadable(body: &Body, why: &str) -> Error {
    Error::Unanswered { action: body.action, message: format!("failed to read the answer: {why}") }
}

/// The name of the outermost element.
fn root(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(Event::Start(start) | Event::Empty(start)) => return String::from_utf8(start.local_name().as_ref().to_vec()).ok(),
            Ok(Event::Eof) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::addresses;
    use super::*;

    fn body(text: &str) -> Body {
        Body { action: "DescribeAddresses", text: text.to_owned() }
    }

    #[test]
    fn an_answer_that_is_no_answer_to_the_action_is_an_error_and_not_an_empty_list() {
        let whole = "<?xml version=\"1.0\"?>\n<DescribeAddressesResponse xmlns=\"urn:ec2\">\
                     <addressesSet/></DescribeAddressesResponse>";
        assert_eq!(addresses(&body(whole)).unwrap(), []);
        let cut = &whole[..whole.len() - 9];
        for text in ["", "ok", "{}", "<!DOCTYPE html><html><body>log in</body></html>", "<DescribeSubnetsResponse/>", cut, "<a"] {
            let error = addresses(&body(text)).expect_err(text);
            assert!(error.may_have_happened() && error.to_string().contains("DescribeAddresses"), "{text}: {error}");
        }
        assert!(done(&body("<html/>")).unwrap_err().to_string().contains("proxy"));
    }

    #[test]
    fn an_address_of_a_carrier_is_passed_over() {
        let text = "<DescribeAddressesResponse><addressesSet>\
                    <item><allocationId>eipalloc-1</allocationId><carrierIp>155.146.1.2</carrierIp></item>\
                    <item><allocationId>eipalloc-2</allocationId><publicIp>192.0.2.1</publicIp></item></addressesSet></DescribeAddressesResponse>";
        assert_eq!(addresses(&body(text)).unwrap().iter().map(|elastic| elastic.id.as_str()).collect::<Vec<_>>(), ["eipalloc-2"]);
    }
}
