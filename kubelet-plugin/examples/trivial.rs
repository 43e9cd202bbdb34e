//! A device plugin that does next to nothing: what any plugin costs, to compare others with.
//!
//! `trivial KUBELET_DIR RESOURCE COUNT CDI_NAME`: so many ids, and every allocation is answered with that CDI name.

use std::sync::Arc;

use tokio::sync::watch;
use vgpu_kubelet_plugin::{
    AllocateRequest, AllocateResponse, DeviceEntry, DeviceList, DevicePlugin, HostOptions,
    KubeletPaths, PluginHost, PluginOptions, PreStartRequest, PreferredRequest, Refusal,
    async_trait,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kubelet, resource, count, cdi_name] = &args[..] else {
        return Err("trivial KUBELET_DIR RESOURCE COUNT CDI_NAME".into());
    };
    let entries = (0..count.parse::<u32>()?).map(|n| DeviceEntry::healthy(format!("id-{n}")));
    let list = DeviceList::new(entries.collect())?;
    let paths = KubeletPaths::under(kubelet);
    let host = PluginHost::new(HostOptions::new(&paths, "trivial"))?;
    let plugin = Trivial { list: watch::Sender::new(list), cdi_name: cdi_name.clone() };
    let mut registration = host.start(resource.parse()?, Arc::new(plugin))?;
    loop {
        eprintln!("{:?}", *registration.borrow_and_update());
        registration.changed().await?;
    }
}

struct Trivial {
    list: watch::Sender<DeviceList>,
    cdi_name: String,
}

#[async_trait]
impl DevicePlugin for Trivial {
    fn options(&self) -> PluginOptions {
        PluginOptions { pre_start: false, preferred_allocation: false }
    }

    fn devices(&self) -> watch::Receiver<DeviceList> {
        self.list.subscribe()
    }

    async fn preferred_allocation(&self, _: PreferredRequest) -> Vec<String> {
        Vec::new()
    }

    async fn allocate(&self, _: AllocateRequest) -> Result<AllocateResponse, Refusal> {
        let cdi_devices = vec![self.cdi_name.clone()];
        Ok(AllocateResponse { cdi_devices, ..AllocateResponse::default() })
    }

    async fn pre_start(&self, _: PreStartRequest) -> Result<(), Refusal> {
        Ok(())
    }
}
