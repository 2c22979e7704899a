//! One function a request code. Answers: `apache/rocketmq: namesrv/.../processor/{DefaultRequestProcessor,ClientRequestProcessor}.java`.

use super::kv::ORDER_TOPIC_CONFIG;
use super::{Namesrv, Registered, Registration};
use crate::config::{self, UpdateError};
use crate::net::{Connection, INTERNAL_ADDR};
use rocketmq_protocol::body::{
    DataVersion, GetBrokerMemberGroupResponseBody, KVTable, RegisterBrokerBody, TopicRouteData,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, HeaderError, json, partition};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Bits of `topicSysFlag` (`TopicSysFlag.java`).
const FLAG_UNIT: i32 = 1;
const FLAG_UNIT_SUB: i32 = 2;

fn with_body(request: &Command, body: &impl Serialize) -> Command {
    request
        .response(response::SUCCESS)
        .with_body(json::to_fastjson(body))
}

impl Namesrv {
    /// Answers any request; an unknown code is answered too.
    pub(super) fn answer(&self, connection: &Connection, request: &Command) -> Command {
        let answer = match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(connection, request),
            request::REGISTER_BROKER => self.register(connection, request),
            request::UNREGISTER_BROKER => self.unregister(request),
            request::BROKER_HEARTBEAT => self.heartbeat(request),
            request::QUERY_DATA_VERSION => self.query_data_version(request),
            request::GET_BROKER_CLUSTER_INFO => Ok(self.partitions.tell(with_body(
                request,
                &self.routes.read().cluster_info(self.view(connection)),
            ))),
            partition::CODE => Ok(self.partitions.obey(connection, request)),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(connection, request),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => {
                let enabled = self.config.get().enable_all_topic_list;
                Ok(self.topic_list(request, enabled, |_| true))
            }
            request::GET_TOPICS_BY_CLUSTER => self.topics_of_cluster(request),
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(with_body(
                request,
                &self.routes.read().system_topics(self.view(connection)),
            )),
            request::GET_UNIT_TOPIC_LIST => {
                Ok(self.unit_topics(request, |flag| flag & FLAG_UNIT != 0))
            }
            request::GET_HAS_UNIT_SUB_TOPIC_LIST => {
                Ok(self.unit_topics(request, |flag| flag & FLAG_UNIT_SUB != 0))
            }
            request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => Ok(self.unit_topics(request, |flag| {
                flag & (FLAG_UNIT | FLAG_UNIT_SUB) == FLAG_UNIT_SUB
            })),
            request::WIPE_WRITE_PERM_OF_BROKER => {
                self.set_writable(request, false, "wipeTopicCount")
            }
            request::ADD_WRITE_PERM_OF_BROKER => self.set_writable(request, true, "addTopicCount"),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(connection, request),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            request::PUT_KV_CONFIG => self.put_kv(request),
            request::GET_KV_CONFIG => self.get_kv(request),
            request::DELETE_KV_CONFIG => self.delete_kv(request),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_namespace(request),
            request::UPDATE_NAMESRV_CONFIG => Ok(self.update_config(connection, request)),
            request::GET_NAMESRV_CONFIG => Ok(request
                .response(response::SUCCESS)
                .with_body(config::to_text(&*self.config.get()))),
            code => Ok(request.error(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!(" request type {code} not supported"),
            )),
        };
        answer.unwrap_or_else(|error| request.error(response::SYSTEM_ERROR, error.to_string()))
    }

    fn route(&self, connection: &Connection, request: &Command) -> Result<Command, HeaderError> {
        let topic = request.ext.str("topic")?;
        let config = self.config.get();
        let Some(mut route) =
            self.routes
                .read()
                .route(topic, self.view(connection), config.support_acting_master)
        else {
            return Ok(request.error(
                response::TOPIC_NOT_EXIST,
                format!(
                    "No topic route info in name server for the topic: {topic}\n\
                     See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
                ),
            ));
        };
        if config.order_message_enable {
            route.order_topic_conf = self
                .kv
                .lock()
                .get(ORDER_TOPIC_CONFIG, topic)
                .map(str::to_string);
        }
        let body = route.encode(
            request.version,
            request.ext.bool_or("acceptStandardJsonOnly", false)?,
        );
        Ok(request.response(response::SUCCESS).with_body(body))
    }

    fn register(&self, connection: &Connection, request: &Command) -> Result<Command, HeaderError> {
        let ext = &request.ext;
        let stated = ext.opt_i32("bodyCrc32")?.unwrap_or(0);
        // `UtilAll.crc32`: the sign bit is cut off.
        let found = (crc32fast::hash(&request.body) & 0x7FFF_FFFF) as i32;
        if stated != 0 && stated != found {
            return Ok(request.error(response::SYSTEM_ERROR, "crc32 not match"));
        }
        let compressed = ext.bool_or("compressed", false)?;
        let body = if request.body.is_empty() {
            RegisterBrokerBody::default()
        } else {
            match RegisterBrokerBody::decode(&request.body, compressed, request.version) {
                Ok(body) => body,
                Err(error) => {
                    return Ok(request.error(
                        response::SYSTEM_ERROR,
                        format!("Failed to decode RegisterBrokerBody: {error}"),
                    ));
                }
            }
        };
        let wrapper = body.topic_config_serialize_wrapper;
        let addr = ext.str("brokerAddr")?;
        let config = self.config.get();
        let registration = Registration {
            cluster: ext.str("clusterName")?.into(),
            broker_name: ext.str("brokerName")?.into(),
            broker_id: ext.i64("brokerId")?,
            addr: addr.into(),
            internal_addr: ext
                .get(INTERNAL_ADDR)
                .filter(|internal| !internal.is_empty())
                .unwrap_or(addr)
                .into(),
            ha_addr: ext.str("haServerAddr")?.into(),
            zone_name: ext.get("__ZONE_NAME").map(str::to_string),
            heartbeat_timeout: ext
                .opt_i64("heartbeatTimeoutMillis")?
                .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            acting_master: match ext.get("enableActingMaster") {
                None => None,
                Some(_) => Some(ext.bool_or("enableActingMaster", false)?),
            },
            topics: wrapper.topic_config_table.into_values().collect(),
            data_version: wrapper.data_version,
            connection: connection.id(),
        };
        let who = (registration.broker_name.clone(), registration.broker_id);
        let new = self
            .routes
            .read()
            .data_version(&registration.cluster, addr)
            .is_none();
        let registered = self.routes.write().register(
            registration,
            config.delete_topic_with_broker_registration,
            Instant::now(),
        );
        let mut answer = request.response(response::SUCCESS);
        match registered {
            Registered::TooEarly => {
                return Ok(request.error(response::SYSTEM_ERROR, "register broker failed"));
            }
            Registered::Older => {
                tracing::warn!(
                    broker = who.0,
                    id = who.1,
                    addr,
                    "registration ignored: another broker of newer state holds this id"
                );
            }
            Registered::Accepted {
                master_addr,
                ha_addr,
                changed,
            } => {
                if new {
                    tracing::info!(broker = who.0, id = who.1, addr, "registered");
                }
                answer.ext.set_some("masterAddr", master_addr);
                answer.ext.set_some("haServerAddr", ha_addr);
                self.tell(changed);
            }
        }
        if config.return_order_topic_config_to_broker
            && let Some(values) = self.kv.lock().namespace(ORDER_TOPIC_CONFIG)
        {
            answer.body = json::to_fastjson(&KVTable {
                table: values.clone(),
            })
            .into();
        }
        Ok(answer)
    }

    fn unregister(&self, request: &Command) -> Result<Command, HeaderError> {
        let (cluster, name, addr) = (
            request.ext.str("clusterName")?,
            request.ext.str("brokerName")?,
            request.ext.str("brokerAddr")?,
        );
        let changed = self.routes.write().unregister(cluster, name, addr);
        tracing::info!(broker = name, addr, "unregistered");
        self.tell(changed);
        Ok(request.response(response::SUCCESS))
    }

    fn heartbeat(&self, request: &Command) -> Result<Command, HeaderError> {
        let (cluster, addr) = (
            request.ext.str("clusterName")?,
            request.ext.str("brokerAddr")?,
        );
        self.routes.write().heartbeat(cluster, addr, Instant::now());
        Ok(request.response(response::SUCCESS))
    }

    fn query_data_version(&self, request: &Command) -> Result<Command, HeaderError> {
        let (cluster, addr) = (
            request.ext.str("clusterName")?,
            request.ext.str("brokerAddr")?,
        );
        let asked: Option<DataVersion> = json::from_slice(&request.body).ok();
        let mut routes = self.routes.write();
        routes.heartbeat(cluster, addr, Instant::now());
        let held = routes.data_version(cluster, addr);
        let mut answer = request
            .response(response::SUCCESS)
            .with("changed", held.is_none() || held != asked.as_ref());
        if let Some(held) = held {
            answer.body = json::to_fastjson(held).into();
        }
        Ok(answer)
    }

    fn member_group(
        &self,
        connection: &Connection,
        request: &Command,
    ) -> Result<Command, HeaderError> {
        let (cluster, name) = (
            request.ext.str("clusterName")?,
            request.ext.str("brokerName")?,
        );
        let group = self
            .routes
            .read()
            .member_group(cluster, name, self.view(connection));
        Ok(with_body(
            request,
            &GetBrokerMemberGroupResponseBody {
                broker_member_group: Some(group),
            },
        ))
    }

    fn topic_list(
        &self,
        request: &Command,
        enabled: bool,
        pass: impl Fn(&std::collections::BTreeMap<String, rocketmq_protocol::body::QueueData>) -> bool,
    ) -> Command {
        if !enabled {
            return request.error(response::SYSTEM_ERROR, "disable");
        }
        with_body(request, &self.routes.read().topic_list(pass))
    }

    fn unit_topics(&self, request: &Command, pass: impl Fn(i32) -> bool) -> Command {
        let enabled = self.config.get().enable_topic_list;
        self.topic_list(request, enabled, |queues| {
            queues
                .values()
                .next()
                .is_some_and(|queue| pass(queue.topic_sys_flag))
        })
    }

    fn topics_of_cluster(&self, request: &Command) -> Result<Command, HeaderError> {
        if !self.config.get().enable_topic_list {
            return Ok(request.error(response::SYSTEM_ERROR, "disable"));
        }
        Ok(with_body(
            request,
            &self
                .routes
                .read()
                .topics_of_cluster(request.ext.str("cluster")?),
        ))
    }

    fn set_writable(
        &self,
        request: &Command,
        writable: bool,
        count: &str,
    ) -> Result<Command, HeaderError> {
        let name = request.ext.str("brokerName")?;
        let topics = self.routes.write().set_writable(name, writable);
        tracing::info!(
            broker = name,
            writable,
            topics,
            "write permission of a broker's topics set"
        );
        Ok(request.response(response::SUCCESS).with(count, topics))
    }

    fn delete_topic(
        &self,
        connection: &Connection,
        request: &Command,
    ) -> Result<Command, HeaderError> {
        let topic = request.ext.str("topic")?;
        let cluster = request
            .ext
            .get("clusterName")
            .filter(|cluster| !cluster.is_empty());
        self.routes.write().delete_topic(topic, cluster);
        tracing::info!(topic, cluster, peer = %connection.peer(), "route of a topic deleted");
        Ok(request.response(response::SUCCESS))
    }

    fn register_topic(&self, request: &Command) -> Result<Command, HeaderError> {
        let topic = request.ext.str("topic")?;
        match json::from_slice::<TopicRouteData>(&request.body) {
            Ok(route) => self.routes.write().register_topic(topic, route.queue_datas),
            Err(error) => {
                return Ok(request.error(
                    response::SYSTEM_ERROR,
                    format!("the body is no TopicRouteData: {error}"),
                ));
            }
        }
        Ok(request.response(response::SUCCESS))
    }

    fn put_kv(&self, request: &Command) -> Result<Command, HeaderError> {
        let ext = &request.ext;
        let (namespace, key, value) = (ext.str("namespace")?, ext.str("key")?, ext.str("value")?);
        Ok(match self.kv.lock().put(namespace, key, value) {
            Ok(()) => request.response(response::SUCCESS),
            Err(error) => request.error(response::SYSTEM_ERROR, error.to_string()),
        })
    }

    fn delete_kv(&self, request: &Command) -> Result<Command, HeaderError> {
        let (namespace, key) = (request.ext.str("namespace")?, request.ext.str("key")?);
        Ok(match self.kv.lock().delete(namespace, key) {
            Ok(()) => request.response(response::SUCCESS),
            Err(error) => request.error(response::SYSTEM_ERROR, error.to_string()),
        })
    }

    fn get_kv(&self, request: &Command) -> Result<Command, HeaderError> {
        let (namespace, key) = (request.ext.str("namespace")?, request.ext.str("key")?);
        Ok(match self.kv.lock().get(namespace, key) {
            Some(value) => request.response(response::SUCCESS).with("value", value),
            None => request.error(
                response::QUERY_NOT_FOUND,
                format!("No config item, Namespace: {namespace} Key: {key}"),
            ),
        })
    }

    fn kv_namespace(&self, request: &Command) -> Result<Command, HeaderError> {
        let namespace = request.ext.str("namespace")?;
        Ok(match self.kv.lock().namespace(namespace) {
            Some(values) => with_body(
                request,
                &KVTable {
                    table: values.clone(),
                },
            ),
            None => request.error(
                response::QUERY_NOT_FOUND,
                format!("No config item, Namespace: {namespace}"),
            ),
        })
    }

    fn update_config(&self, connection: &Connection, request: &Command) -> Command {
        match self.config.update(&request.body) {
            Ok(changed) => {
                tracing::info!(peer = %connection.peer(), ?changed, "configuration changed over the wire");
                request.response(response::SUCCESS)
            }
            Err(error @ (UpdateError::NotLive(_) | UpdateError::Unknown(_))) => {
                request.error(response::NO_PERMISSION, error.to_string())
            }
            Err(error @ UpdateError::Value(_)) => {
                request.error(response::INVALID_PARAMETER, error.to_string())
            }
        }
    }
}
