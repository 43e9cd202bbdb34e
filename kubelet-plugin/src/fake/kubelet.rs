use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::fake::admission::allocate_pod;
use crate::fake::checkpoint_file;
use crate::fake::inner::Inner;
use crate::fake::lister::Lister;
use crate::fake::options::{FakeOptions, Forget};
use crate::fake::pod::{AdmissionError, Allocation, ContainerView, Pod, PodSpec, StartError};
use crate::fake::registry::Registry;
use crate::fake::start::start_container;
use crate::fake::state::{Counters, Run, State};
use crate::paths::{KubeletPaths, check_socket_path};
use crate::pb::device_plugin::registration_server::RegistrationServer;
use crate::pb::pod_resources::pod_resources_lister_server::PodResourcesListerServer;
use crate::transport::{Acceptor, Listening};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A kubelet in-process. The pods it is given stay over its restarts, as those of an API server would.
///
/// It needs a Tokio runtime with time and I/O. Dropping it is a kill.
pub struct FakeKubelet {
    inner: Arc<Inner>,
    /// A kubelet admits one pod at a time.
    admission: tokio::sync::Mutex<()>,
    listening: Mutex<Vec<Listening>>,
}

impl FakeKubelet {
    /// Starts a kubelet; its folders are made if missing. It must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says about folders and sockets, a damaged checkpoint, or a socket path that is too long.
    pub fn new(options: FakeOptions) -> io::Result<Self> {
        tracing::info!(seed = options.seed, "a fake kubelet");
        let inner = Arc::new(Inner::new(options));
        let (admission, listening) = (tokio::sync::Mutex::new(()), Mutex::default());
        let kubelet = Self { inner, admission, listening };
        kubelet.boot(Duration::ZERO)?;
        Ok(kubelet)
    }

    /// Starts a stopped kubelet: every socket in its folder is wiped, its own is made anew, allocations come back from the
    /// checkpoint, no resource has devices until its plugin registers, and `PodResources` is empty for a while.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub async fn start(&self) -> io::Result<()> {
        self.stop().await;
        self.boot(self.inner.options.pods_hidden)
    }

    /// Kills the kubelet: every connection and stream ends, its socket files stay, containers run on.
    pub async fn stop(&self) {
        self.inner.change(State::forget_all);
        let listening =
            std::mem::take(&mut *self.listening.lock().unwrap_or_else(PoisonError::into_inner));
        for socket in listening {
            socket.close().await;
        }
    }

    /// [`stop`](Self::stop), then [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub async fn restart(&self) -> io::Result<()> {
        self.start().await
    }

    /// Admits a pod: devices are chosen and allocated for all its containers, and written to the checkpoint.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`], with the text that would stand in the pod's status.
    pub async fn admit(&self, pod: PodSpec) -> Result<Pod, AdmissionError> {
        let _one = self.admission.lock().await;
        let cut = self.inner.cut().ok_or(AdmissionError::Stopped)?;
        let uid = pod.uid.clone();
        let taken = self.inner.change(|state| {
            state.tidy();
            state.pods.contains_key(&uid) || state.pods.insert(uid.clone(), pod.clone()).is_some()
        });
        if taken {
            return Err(AdmissionError::UidTaken { uid });
        }
        let outcome = cut.run_until_cancelled(allocate_pod(&self.inner, &pod)).await;
        let refused = match outcome {
            Some(Ok(())) => return Ok(self.describe(&pod)),
            Some(Err(message)) => AdmissionError::Rejected {
                message: format!("Allocate failed due to {message}, which is unexpected"),
            },
            None => AdmissionError::Stopped,
        };
        self.inner.change(|state| {
            state.pods.remove(&uid);
            state.tidy();
        });
        Err(refused)
    }

    /// Starts a container of an admitted pod, or tries again: `PreStartContainer` if the plugin wants it, then the CDI names
    /// are resolved.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the container is waiting and this may be called again, as a kubelet does every 10 to 16 s.
    pub async fn start_container(
        &self,
        uid: &str,
        container: &str,
    ) -> Result<ContainerView, StartError> {
        let cut = self.inner.cut().ok_or(StartError::Stopped)?;
        let starting = start_container(&self.inner, uid, container);
        cut.run_until_cancelled(starting).await.unwrap_or(Err(StartError::Stopped))
    }

    /// Starts a container that had run and ended: the same devices, no Allocate, `PreStartContainer` again.
    ///
    /// # Errors
    ///
    /// As for [`start_container`](Self::start_container).
    pub async fn restart_container(
        &self,
        uid: &str,
        container: &str,
    ) -> Result<ContainerView, StartError> {
        self.start_container(uid, container).await
    }

    /// Forgets a pod; `PodResources` no longer lists it. No plugin is told. Whether the pod was there.
    ///
    /// # Panics
    ///
    /// If the checkpoint cannot be written.
    pub fn delete_pod(&self, uid: &str) -> bool {
        let at_once = self.inner.options.forget == Forget::AtOnce;
        let (was, tidied) = self.inner.change(|state| {
            let was = state.pods.remove(uid).is_some();
            (was, at_once && state.run.is_some() && state.tidy())
        });
        if tidied {
            self.inner
                .write_checkpoint()
                .expect("the folder of the checkpoint was writable before");
        }
        was
    }

    /// Ends the stream of a resource's plugin and nothing else; a kubelet never opens it again by itself.
    pub fn drop_stream(&self, resource: &str) {
        let now = self.inner.options.clock.now();
        self.inner.change(|state| state.disconnect(resource, now));
    }

    /// Healthy devices of a resource, as in the node's `allocatable`.
    #[must_use]
    pub fn allocatable(&self, resource: &str) -> usize {
        self.inner.look(|state| state.allocatable(resource))
    }

    /// All devices of a resource, as in the node's `capacity`.
    #[must_use]
    pub fn capacity(&self, resource: &str) -> usize {
        self.inner.look(|state| state.capacity(resource))
    }

    /// The pods on the node with what they hold.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        let specs: Vec<PodSpec> = self.inner.look(|state| state.pods.values().cloned().collect());
        specs.iter().map(|spec| self.describe(spec)).collect()
    }

    /// How often what was done, since [`new`](Self::new).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.look(|state| state.counters)
    }

    /// Its places.
    #[must_use]
    pub fn paths(&self) -> &KubeletPaths {
        &self.inner.options.paths
    }

    /// What it was made with; the clock in it can be put forward.
    #[must_use]
    pub fn options(&self) -> &FakeOptions {
        &self.inner.options
    }

    /// Waits until so many devices are allocatable.
    ///
    /// # Errors
    ///
    /// [`WaitError`] after the options' `wait_limit`.
    pub async fn wait_allocatable(&self, resource: &str, count: usize) -> Result<(), WaitError> {
        let what = format!("{count} allocatable {resource}");
        self.wait_until(&what, |kubelet| kubelet.allocatable(resource) == count).await
    }

    /// Waits until the node's capacity is so many.
    ///
    /// # Errors
    ///
    /// [`WaitError`] after the options' `wait_limit`.
    pub async fn wait_capacity(&self, resource: &str, count: usize) -> Result<(), WaitError> {
        let what = format!("a capacity of {count} {resource}");
        self.wait_until(&what, |kubelet| kubelet.capacity(resource) == count).await
    }

    /// Waits until a condition over this kubelet holds; it is looked at after each change.
    ///
    /// # Errors
    ///
    /// [`WaitError`] after the options' `wait_limit`.
    pub async fn wait_until(
        &self,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), WaitError> {
        let mut version = self.inner.version();
        let waiting = async {
            while !condition(self) {
                // The clock tells nobody when it is put forward, so look again after a while too.
                let _ = tokio::time::timeout(LOOK_AGAIN, version.changed()).await;
            }
        };
        let limit = self.inner.options.wait_limit;
        tokio::time::timeout(limit, waiting)
            .await
            .map_err(|_elapsed| WaitError { what: what.to_owned(), seen: format!("{self:?}") })
    }

    fn boot(&self, hidden: Duration) -> io::Result<()> {
        let inner = &self.inner;
        let paths = &inner.options.paths;
        let (registration, lister) = (paths.registration_socket(), &paths.pod_resources_socket);
        std::fs::create_dir_all(&paths.device_plugins)?;
        lister.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        for socket in [&registration, lister] {
            check_socket_path(socket).map_err(io::Error::other)?;
        }
        let (held, resources) = checkpoint_file::read(&paths.checkpoint())?;
        let now = inner.options.clock.now();
        let cut = CancellationToken::new();
        inner.change(|state| {
            state.load(held, resources, now);
            if inner.options.forget == Forget::AtOnce {
                state.tidy();
            }
            state.run = Some(Run { cut: cut.clone(), pods_shown_at: now + hidden });
        });
        wipe(&paths.device_plugins)?;
        let registry = Registry { inner: Arc::clone(inner), cut: cut.clone() };
        let registration_server = Server::builder().add_service(RegistrationServer::new(registry));
        let pods = PodResourcesListerServer::new(Lister { inner: Arc::clone(inner) });
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.push(serve(&registration, &cut, registration_server)?);
        listening.push(serve(lister, &cut, Server::builder().add_service(pods))?);
        Ok(())
    }

    fn describe(&self, pod: &PodSpec) -> Pod {
        let mut allocations = self.inner.look(|state| {
            let ours = state.held.iter().filter(|held| held.pod_uid == pod.uid);
            ours.map(|held| Allocation {
                container: held.container.clone(),
                resource: held.resource.clone(),
                device_ids: held.ids(),
                cdi_devices: held.response.cdi_devices.iter().map(|d| d.name.clone()).collect(),
            })
            .collect::<Vec<_>>()
        });
        allocations.sort_by(|a, b| (&a.container, &a.resource).cmp(&(&b.container, &b.resource)));
        Pod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            allocations,
        }
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.inner.change(State::forget_all);
    }
}

impl fmt::Debug for FakeKubelet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources = self.inner.look(|state| {
            let entry = |name: &String| {
                let (allocatable, capacity) = (state.allocatable(name), state.capacity(name));
                format!("{name}: {allocatable} of {capacity}")
            };
            state.resources.keys().map(entry).collect::<Vec<_>>()
        });
        f.debug_struct("FakeKubelet")
            .field("seed", &self.inner.options.seed)
            .field("resources", &resources)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// What was waited for did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited in vain for {what}; what is: {seen}")]
pub struct WaitError {
    what: String,
    seen: String,
}

/// Removes every socket in the folder and nothing else.
fn wipe(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn serve(socket: &Path, cut: &CancellationToken, router: Router) -> io::Result<Listening> {
    let (acceptor, incoming) = Acceptor::new(cut.clone());
    let listening = acceptor.listen(socket)?;
    let cut = cut.clone();
    tokio::spawn(async move {
        let serving = router.serve_with_incoming(incoming);
        if let Some(Err(error)) = cut.run_until_cancelled(serving).await {
            tracing::error!(%error, "the fake kubelet's server ended");
        }
    });
    Ok(listening)
}
