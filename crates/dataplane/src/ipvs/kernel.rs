//! What this data plane asks of the kernel beside its front: IPVS, a route per family, a few settings. [`Machine`] is
//! the real one; a fake is [`FakeMachine`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use ipnet::IpNet;
use portolan_forward::Family;
use portolan_netlink::ipvs::{self, Fake, Ipvs};
use portolan_netlink::rt::{PROTOCOL_PORTOLAN, Route, RouteKind, RouteScope, Rt};
use thiserror::Error;

use super::layout::{Setting, range};
use super::observe::families;

pub trait Kernel: Send {
    type Ipvs: Ipvs;

    fn ipvs(&mut self) -> &mut Self::Ipvs;

    fn setting(&mut self, setting: Setting) -> io::Result<u8>;

    fn set(&mut self, setting: Setting, value: u8) -> io::Result<()>;

    /// The families whose range of virtual servers leads to IPVS.
    fn ranges(&mut self) -> io::Result<Vec<Family>>;

    fn add_range(&mut self, family: Family) -> io::Result<()>;

    fn remove_range(&mut self, family: Family) -> io::Result<()>;
}

#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "this kernel has no IPVS; load it with `modprobe ip_vs` (and its schedulers: ip_vs_rr and others), or choose \
         another mode"
    )]
    NoIpvs,
    #[error("cannot talk to the kernel's IPVS: {0}; that needs root (CAP_NET_ADMIN)")]
    Kernel(#[source] io::Error),
}

/// The kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Machine {
    ipvs: ipvs::Socket,
    rt: Rt,
    /// `/proc/sys/net/ipv4` of the namespace: a path would lead to that of whichever thread asks.
    settings: File,
}

impl Machine {
    pub fn open() -> Result<Self, OpenError> {
        let ipvs = ipvs::Socket::open().map_err(OpenError::Kernel)?.ok_or(OpenError::NoIpvs)?;
        let rt = Rt::open().map_err(|error| OpenError::Kernel(io::Error::other(error)))?;
        let settings = File::open("/proc/sys/net/ipv4").map_err(OpenError::Kernel)?;
        Ok(Self { ipvs, rt, settings })
    }

    fn path(&self, setting: Setting) -> PathBuf {
        let directory = self.settings.as_raw_fd();
        format!("/proc/self/fd/{directory}/{}", setting.path()).into()
    }

    fn route(&mut self, family: Family) -> io::Result<Route> {
        let lo = self.rt.link("lo").map_err(io::Error::other)?.index;
        Ok(Route { kind: RouteKind::Local, scope: RouteScope::Host, ..Route::on_link(range(family), lo) })
    }
}

fn about(setting: Setting) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("net/ipv4/{}: {error}", setting.path()))
}

impl Kernel for Machine {
    type Ipvs = ipvs::Socket;

    fn ipvs(&mut self) -> &mut ipvs::Socket {
        &mut self.ipvs
    }

    fn setting(&mut self, setting: Setting) -> io::Result<u8> {
        let mut text = String::new();
        File::open(self.path(setting))
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(about(setting))?;
        text.trim().parse().map_err(io::Error::other).map_err(about(setting))
    }

    fn set(&mut self, setting: Setting, value: u8) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.path(setting)).map_err(about(setting))?;
        file.write_all(value.to_string().as_bytes()).map_err(about(setting))
    }

    fn ranges(&mut self) -> io::Result<Vec<Family>> {
        let routes = self.rt.routes().map_err(io::Error::other)?;
        let leads = |family| {
            let range: IpNet = range(family);
            routes.iter().any(|route| {
                route.destination == range
                    && route.kind == RouteKind::Local
                    && route.protocol == PROTOCOL_PORTOLAN
            })
        };
        Ok(families(leads))
    }

    fn add_range(&mut self, family: Family) -> io::Result<()> {
        let route = self.route(family)?;
        self.rt.replace_route(&route).map_err(io::Error::other)
    }

    fn remove_range(&mut self, family: Family) -> io::Result<()> {
        let route = self.route(family)?;
        match self.rt.delete_route(&route) {
            Err(error) if !error.is_missing() => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }
}

/// A fake for tests of what is written.
#[derive(Debug, Default)]
pub struct FakeMachine {
    pub ipvs: Fake,
    settings: BTreeMap<Setting, u8>,
    ranges: BTreeSet<Family>,
}

impl Kernel for FakeMachine {
    type Ipvs = Fake;

    fn ipvs(&mut self) -> &mut Fake {
        &mut self.ipvs
    }
    fn setting(&mut self, setting: Setting) -> io::Result<u8> {
        Ok(self.settings.get(&setting).copied().unwrap_or(setting.initial()))
    }
    fn set(&mut self, setting: Setting, value: u8) -> io::Result<()> {
        self.settings.insert(setting, value);
        Ok(())
    }
    fn ranges(&mut self) -> io::Result<Vec<Family>> {
        Ok(families(|family| self.ranges.contains(&family)))
    }
    fn add_range(&mut self, family: Family) -> io::Result<()> {
        self.ranges.insert(family);
        Ok(())
    }
    fn remove_range(&mut self, family: Family) -> io::Result<()> {
        self.ranges.remove(&family);
        Ok(())
    }
}
