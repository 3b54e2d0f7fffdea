//! One call of an operation: its members, the stream it names, and whether its caller may.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use vidar_core::auth::Principal;
use vidar_core::control::StreamRecord;
use vidar_core::ids::StreamName;
use vidar_core::policy::{Action, Target};

use crate::arn::Arn;
use crate::error::{ServiceError, ServiceResult};
use crate::{Kvs, attributes};

/// Reads the members of an operation. Unknown ones are none of ours; no body is an empty object.
pub(crate) fn members<T: DeserializeOwned>(body: &[u8]) -> ServiceResult<T> {
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ServiceError::invalid(error.to_string()),
        _ => ServiceError::serialization(error.to_string()),
    })
}

/// A member that has to be there.
pub(crate) fn required<T>(name: &str, value: Option<T>) -> ServiceResult<T> {
    value.ok_or_else(|| ServiceError::invalid(format!("{name} is required.")))
}

/// A number within its bounds.
pub(crate) fn within(name: &str, value: i64, min: i64, max: i64) -> ServiceResult<i64> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ServiceError::invalid(format!("{name}: expected {min} to {max}.")))
}

/// The name of a stream, within the grammar.
pub(crate) fn stream_name(name: &str) -> ServiceResult<StreamName> {
    StreamName::new(name).map_err(|error| ServiceError::invalid(format!("StreamName: {error}")))
}

/// Whether somebody may do that.
pub(crate) fn check(who: &Principal, operation: &str, action: Action, stream: &str) -> ServiceResult<()> {
    if who.may(action, Target::Stream(stream)) {
        return Ok(());
    }
    Err(ServiceError::denied(&who.access_key_id, operation, stream))
}

/// Whose answer it is that goes on for long: looked at again and again.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) who: Principal,
    pub(crate) stream: Arc<StreamRecord>,
}

impl Reading {
    /// The stream was not deleted, its name may be another's by now; and who reads it may do so still.
    pub(crate) fn goes_on(&self, kvs: &Kvs) -> bool {
        let now = kvs.registry.get(&self.stream.name);
        now.is_some_and(|now| now.stream == self.stream.stream)
            && kvs.keys.may_still(&self.who, Action::Read, Target::Stream(self.stream.name.as_str()))
    }
}

/// An operation on one stream.
pub(crate) struct Call<'a> {
    pub(crate) kvs: &'a Kvs,
    pub(crate) who: &'a Principal,
    pub(crate) operation: &'static str,
    pub(crate) action: Action,
}

impl Call<'_> {
    /// The stream that a request names, by its name or its ARN.
    pub(crate) fn stream(&self, name: Option<&str>, arn: Option<&str>) -> ServiceResult<Arc<StreamRecord>> {
        let arn = arn.map(Arn::parse).transpose()?;
        let name = match (name, &arn) {
            (Some(name), Some(arn)) if name != arn.name => {
                return Err(ServiceError::invalid("StreamName and StreamARN name different streams."));
            }
            (Some(name), _) => name,
            (None, Some(arn)) => arn.name,
            (None, None) => return Err(ServiceError::invalid("Either StreamName or StreamARN is required.")),
        };
        let name = stream_name(name)?;
        check(self.who, self.operation, self.action, name.as_str())?;
        let record = self.kvs.registry.get(&name).ok_or_else(ServiceError::not_found)?;
        // An ARN of a stream that was deleted is not that of a new one of its name.
        if arn.is_some_and(|arn| arn.created_ms != record.created.0) {
            return Err(ServiceError::not_found());
        }
        self.kvs.limits.call(Some(record.stream), self.operation, self.kvs.clock.monotonic())?;
        Ok(record)
    }

    /// Changes a stream that is still what the caller saw.
    pub(crate) async fn change(
        &self,
        record: &StreamRecord,
        version: Option<&str>,
        change: impl FnOnce(&mut vidar_core::control::StreamSettings) -> ServiceResult<()>,
    ) -> ServiceResult<()> {
        let _one_by_one = self.kvs.changes.lock().await;
        let record = self.kvs.registry.get(&record.name).filter(|now| now.stream == record.stream);
        let record = record.ok_or_else(ServiceError::not_found)?;
        if version.is_some_and(|version| version != attributes::version(&record)) {
            return Err(ServiceError::version_mismatch());
        }
        let mut settings = record.settings.clone();
        change(&mut settings)?;
        attributes::renew(&mut settings);
        self.kvs.registry.change(&record.name, settings).await?;
        Ok(())
    }
}
