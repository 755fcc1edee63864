//! Requests with responses. [5.0 §4.10]

use crate::error::RequestError;
use crate::{Client, Message};
use mqtt_sansio::codec::{Publish, PublishProperties, QoS};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Pending = Arc<Mutex<HashMap<Vec<u8>, oneshot::Sender<Message>>>>;

/// Publishes requests and waits for their responses, by Response Topic and Correlation Data. Needs
/// MQTT 5.0.
///
/// ```no_run
/// use mqtt_sansio_client::codec::{Publish, QoS};
/// use std::time::Duration;
/// use tokio::time::timeout;
///
/// # async fn example(client: mqtt_sansio_client::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let requester = client.requester("responses/sensor-4").await?;
/// let question = Publish { qos: QoS::AtLeastOnce, ..Publish::new("time/now", b"UTC") };
/// let response = timeout(Duration::from_secs(5), requester.request(question)).await??;
/// println!("{:?}", response.payload());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Requester {
    client: Client,
    response_topic: String,
    pending: Pending,
    /// Distributes the responses.
    task: JoinHandle<()>,
}

impl Requester {
    pub(crate) async fn new(client: Client, response_topic: &str) -> Result<Self, RequestError> {
        let mut responses = client.subscribe(response_topic, QoS::ExactlyOnce).await?;
        let pending = Pending::default();
        let waiting = pending.clone();
        let task = tokio::spawn(async move {
            while let Some(response) = responses.recv().await {
                let data = response.properties().correlation_data;
                let waiter = data.and_then(|data| lock(&waiting).remove(data));
                let _ = response.acknowledge(mqtt_sansio::codec::ReasonCode::SUCCESS);
                match waiter {
                    Some(waiter) => drop(waiter.send(response)),
                    None => tracing::debug!("no request waits for the response {response:?}"),
                }
            }
            // The client has ended.
            lock(&waiting).clear();
        });
        Ok(Self { client, response_topic: response_topic.to_owned(), pending, task })
    }

    /// Publishes a request, whose Response Topic and Correlation Data this call sets, and waits for
    /// the first response.
    ///
    /// If the call is dropped, a response that still arrives is discarded.
    pub async fn request(&self, request: Publish<'_>) -> Result<Message, RequestError> {
        let data = fastrand::u128(..).to_be_bytes();
        let (waiter, response) = oneshot::channel();
        lock(&self.pending).insert(data.to_vec(), waiter);
        // Dropped at each end of this call.
        let _forget = Forget(&self.pending, &data);
        let properties = PublishProperties {
            response_topic: Some((&self.response_topic).into()),
            correlation_data: Some(&data),
            ..request.properties
        };
        let delivery = self.client.publish(Publish { properties, ..request }).await?;
        tokio::pin!(response);
        tokio::select! {
            // The response can come before the acknowledgement.
            biased;
            response = &mut response => return response.map_err(|_| RequestError::Closed),
            delivered = delivery => drop(delivered?),
        }
        response.await.map_err(|_| RequestError::Closed)
    }

    /// Returns the topic name on which responses arrive.
    #[must_use]
    pub fn response_topic(&self) -> &str {
        &self.response_topic
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Forget<'a>(&'a Pending, &'a [u8]);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).remove(self.1);
    }
}

fn lock(
    pending: &Pending,
) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, oneshot::Sender<Message>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
