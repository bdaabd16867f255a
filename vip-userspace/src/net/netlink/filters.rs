//! Filters of the clsact queueing discipline.

use std::io;

use futures_util::stream::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::{Netlink, refused};
use crate::datapath::Filter;
use crate::net::NetError;

impl Netlink {
    /// The clsact filters of an interface, on the way in and out, in the order in which they run.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn filters(&self, index: u32) -> Result<[Vec<Filter>; 2], NetError> {
        let [ingress, egress] = self.all_filters(index).await?;
        Ok([ingress, egress].map(|all| all.iter().filter_map(filter).collect()))
    }

    async fn all_filters(&self, index: u32) -> Result<[Vec<TcMessage>; 2], NetError> {
        let get = || self.handle.traffic_filter(index.cast_signed()).get();
        let mut all = [Vec::new(), Vec::new()];
        for (found, request) in all.iter_mut().zip([get().ingress(), get().egress()]) {
            *found = request
                .execute()
                .try_collect()
                .await
                .map_err(refused("list filters"))?;
        }
        Ok(all)
    }

    /// Removes clsact's queueing discipline from an interface, unless somebody's filters hang at
    /// it. One that is not there is as good.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove_clsact(&self, index: u32) -> Result<(), NetError> {
        if self.all_filters(index).await? != [vec![], vec![]] {
            return Ok(());
        }
        let mut request = self.handle.qdisc().del(index.cast_signed());
        let header = &mut request.message_mut().header;
        header.parent = TcHandle::CLSACT;
        header.handle = TcHandle {
            major: 0xffff,
            minor: 0,
        };
        match request.execute().await.map_err(refused("remove clsact")) {
            // How the kernel says that it is not there (`__tc_get_qdisc`, net/sched/sch_api.c).
            Err(NetError::Io { error, .. })
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

/// A filter that frames come to by themselves. (Each priority has an entry of its own before its
/// filters, with no handle; other chains are for those that jump there.)
fn filter(message: &TcMessage) -> Option<Filter> {
    let mut found = Filter {
        kind: String::new(),
        program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => found.kind.clone_from(kind),
            TcAttribute::Chain(chain) if *chain != 0 => return None,
            TcAttribute::Options(options) => {
                found.program = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (message.header.handle != TcHandle::UNSPEC).then_some(found)
}
