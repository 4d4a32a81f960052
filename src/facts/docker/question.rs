//! The questions that a session asks an engine.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::Network;
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};

use super::book::Endpoint;
use super::read::{self, Listed};
use super::session::{Answer, Ended};

/// Containers in one answer: bounds the memory of reading 10,000 of them.
pub const PAGE: i32 = 500;

pub async fn some_containers(docker: &Docker, asked: Vec<(String, u32)>) -> Result<Answer, Ended> {
    let ids = asked.iter().map(|(id, _)| id.clone()).collect();
    let filters = HashMap::from([("id".to_owned(), ids)]);
    let listed = containers(docker, ListContainersOptions { all: true, filters: Some(filters), ..Default::default() }).await?;
    Ok(Answer::Containers { asked, listed })
}

pub async fn some_endpoints(docker: &Docker, network: String, endpoints: Vec<Endpoint>) -> Result<Answer, Ended> {
    let inspected = match docker.inspect_network(&network, None).await {
        Ok(inspected) => Some(Box::new(inspected)),
        // It went meanwhile.
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => None,
        Err(source) => {
            return Err(Ended::Question { question: "a network's containers", source });
        }
    };
    Ok(Answer::Endpoints { network, endpoints, inspected })
}

pub async fn one_network(docker: &Docker, id: String) -> Result<Answer, Ended> {
    let networks = networks(docker, Some(HashMap::from([("id".to_owned(), vec![id.clone()])]))).await?;
    // The filter takes prefixes too.
    let network = networks.into_iter().find(|network| network.id.as_ref() == Some(&id)).map(Box::new);
    Ok(Answer::Network { id, network })
}

pub async fn all_networks(docker: &Docker) -> Result<Vec<Network>, Ended> {
    networks(docker, None).await
}

async fn networks(docker: &Docker, filters: Option<HashMap<String, Vec<String>>>) -> Result<Vec<Network>, Ended> {
    let networks = docker.list_networks(filters.map(|filters| ListNetworksOptions { filters: Some(filters) })).await;
    networks.map_err(|source| Ended::Question { question: "its networks", source })
}

/// The newest first, page by page; one that is made meanwhile has an event.
pub async fn all_containers(docker: &Docker) -> Result<Vec<Listed>, Ended> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let filters = all.last().map(|last| HashMap::from([("before".to_owned(), vec![last.id.clone()])]));
        let page = containers(docker, ListContainersOptions { all: true, limit: Some(PAGE), filters, size: false }).await?;
        let whole = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        all.extend(page);
        if !whole {
            return Ok(all);
        }
    }
}

async fn containers(docker: &Docker, options: ListContainersOptions) -> Result<Vec<Listed>, Ended> {
    let summaries = docker.list_containers(Some(options)).await;
    let summaries = summaries.map_err(|source| Ended::Question { question: "its containers", source })?;
    Ok(summaries.into_iter().filter_map(read::container).collect())
}
