//! The processes that serve.

use crate::caller::Known;
use crate::convert::{from_duration, from_instant, from_labels, name, note};
use crate::proto::host::State;
use crate::proto::host_service_server::HostService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::host::{FleetPause, HostState, HostStatus};
use innkeeper_domain::{Timestamp, time};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl HostService for Api {
    async fn get_host(
        &self,
        request: Request<proto::GetHostRequest>,
    ) -> Result<Response<proto::Host>, Status> {
        Known::of(&request)?;
        let hosts = self.store.host_list().await.map_err(of_store)?;
        // Between two incarnations, and at the very start, the store doesn't know it.
        let unknown = || proto::Host {
            name: self.name.to_string(),
            address: self.address.clone(),
            version: self.version.into(),
            ..proto::Host::default()
        };
        // Its incarnations change, its name and address don't.
        let is_own =
            |status: &HostStatus| status.host.name == self.name && status.host.address == self.address;
        let own = hosts.into_iter().filter(is_own).max_by_key(|status| status.started_at);
        Ok(Response::new(own.map_or_else(unknown, |own| from_host(own, (self.now)()))))
    }

    async fn list_hosts(
        &self,
        request: Request<proto::ListHostsRequest>,
    ) -> Result<Response<proto::ListHostsResponse>, Status> {
        Known::of(&request)?;
        let hosts = from_hosts(self.store.host_list().await.map_err(of_store)?, (self.now)());
        let pause = self.store.fleet_paused().await.map_err(of_store)?.map(from_pause);
        Ok(Response::new(proto::ListHostsResponse { hosts, pause }))
    }

    async fn pause_fleet(
        &self,
        request: Request<proto::PauseFleetRequest>,
    ) -> Result<Response<proto::FleetPause>, Status> {
        let known = Known::of(&request)?;
        let note = note(request.into_inner().note)?;
        let pause = self.store.fleet_pause(note, known.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(from_pause(pause)))
    }

    async fn unpause_fleet(
        &self,
        request: Request<proto::UnpauseFleetRequest>,
    ) -> Result<Response<proto::UnpauseFleetResponse>, Status> {
        let known = Known::of(&request)?;
        self.store.fleet_unpause(known.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(proto::UnpauseFleetResponse {}))
    }

    async fn set_host_state(
        &self,
        request: Request<proto::SetHostStateRequest>,
    ) -> Result<Response<proto::SetHostStateResponse>, Status> {
        let known = Known::of(&request)?;
        let request = request.into_inner();
        let (name, state) = (name(&request.name, "the host")?, state(request.state())?);
        let hosts =
            self.store.host_set_state(&name, state, known.change((self.now)())).await.map_err(of_store)?;
        tracing::info!(host = %name, %state, "a host's state was set");
        Ok(Response::new(proto::SetHostStateResponse { hosts: from_hosts(hosts, (self.now)()) }))
    }
}

fn state(state: State) -> Result<HostState, Status> {
    match state {
        State::Unspecified => Err(invalid("the host's new state is missing")),
        State::Active => Ok(HostState::Active),
        State::Cordoned => Ok(HostState::Cordoned),
        State::Draining => Ok(HostState::Draining),
    }
}

fn from_state(state: HostState) -> State {
    match state {
        HostState::Active => State::Active,
        HostState::Cordoned => State::Cordoned,
        HostState::Draining => State::Draining,
    }
}

fn from_pause(pause: FleetPause) -> proto::FleetPause {
    proto::FleetPause { note: pause.note, at: Some(from_instant(pause.at)) }
}

fn from_hosts(hosts: Vec<HostStatus>, now: Timestamp) -> Vec<proto::Host> {
    hosts.into_iter().map(|status| from_host(status, now)).collect()
}

fn from_host(status: HostStatus, now: Timestamp) -> proto::Host {
    let host = status.host;
    proto::Host {
        id: host.id.to_string(),
        version: host.version,
        name: host.name.to_string(),
        state: from_state(status.state).into(),
        roles: host.roles.iter().map(ToString::to_string).collect(),
        labels: from_labels(&host.labels),
        running: status.running,
        capacity: host.capacity,
        address: host.address,
        started_at: Some(from_instant(status.started_at)),
        lease_until: Some(from_instant(status.lease_until)),
        lease_left: Some(from_duration(time::between(now, status.lease_until))),
    }
}
