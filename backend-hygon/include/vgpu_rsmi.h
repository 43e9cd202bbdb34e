/*
 * The part of ROCm SMI's C ABI (librocm_smi64) that vgpu calls, written by us from the facts in the field notes.
 *
 * Hygon ships two families of it (2.8 and 7.6), Debian another (5.2): the same names with structs of different sizes.
 * So only calls of fixed shape are used (numbers and strings), and every struct that the library fills is passed as
 * untyped room of VGPU_RSMI_ROOM bytes, zeroed: rsmi_error_count_t is 16 or 64 bytes, an event 72 or 104. What stands
 * at the same place in all of them is described here and read from there.
 *
 * Left out on purpose: rsmi_topo_get_link_type, which ends the process (an assertion) where a link is not of a kind
 * that it knows; the kernel's own files tell links.
 *
 * Functions are typedefs, never declarations, so that nothing links to the library: smi/sys.rs looks each one up by
 * the typedef's name less the suffix "_fn". `cargo xtask bindings` turns this file into src/smi/bindings.rs.
 */
#ifndef VGPU_RSMI_H
#define VGPU_RSMI_H

/* The widths of the C types are those of 64-bit Linux; no header of a system is needed. */

/* Room for anything that the library fills, in bytes. */
#define VGPU_RSMI_ROOM 4096u

/* Upstream's library lists only cards of 0x1002 without it. */
#define VGPU_RSMI_INIT_ALL_GPUS 1u

#define VGPU_RSMI_MEMORY_VRAM 0u
#define VGPU_RSMI_BLOCK_UMC 1u

typedef unsigned int rsmi_status_t;

typedef struct {
    unsigned int major;
    unsigned int minor;
    unsigned int patch;
    const char *build;
} rsmi_version_t;

/* The first fields of rsmi_error_count_t in every version. */
typedef struct {
    unsigned long correctable;
    unsigned long uncorrectable;
} rsmi_error_count_head_t;

/* The first fields of rsmi_evt_notification_data_t in every version. */
typedef struct {
    unsigned int dv_ind;
    unsigned int event;
} rsmi_evt_head_t;

typedef rsmi_status_t rsmi_init_fn(unsigned long flags);
typedef rsmi_status_t rsmi_shut_down_fn(void);
typedef rsmi_status_t rsmi_num_monitor_devices_fn(unsigned int *count);
typedef rsmi_status_t rsmi_version_get_fn(void *version);
typedef rsmi_status_t rsmi_dev_pci_id_get_fn(unsigned int dv_ind, unsigned long *bdfid);
typedef rsmi_status_t rsmi_dev_serial_number_get_fn(unsigned int dv_ind, char *serial, unsigned int length);
typedef rsmi_status_t rsmi_dev_memory_total_get_fn(unsigned int dv_ind, unsigned int type, unsigned long *bytes);
typedef rsmi_status_t rsmi_dev_memory_usage_get_fn(unsigned int dv_ind, unsigned int type, unsigned long *bytes);
typedef rsmi_status_t rsmi_dev_busy_percent_get_fn(unsigned int dv_ind, unsigned int *percent);
typedef rsmi_status_t rsmi_dev_ecc_count_get_fn(unsigned int dv_ind, unsigned long block, void *counts);
typedef rsmi_status_t rsmi_dev_cu_num_get_fn(unsigned int dv_ind, int *count);
typedef rsmi_status_t rsmi_event_notification_init_fn(unsigned int dv_ind);
typedef rsmi_status_t rsmi_event_notification_mask_set_fn(unsigned int dv_ind, unsigned long mask);
typedef rsmi_status_t rsmi_event_notification_get_fn(int timeout_ms, unsigned int *count, void *events);

#endif
