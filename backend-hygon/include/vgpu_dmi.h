/*
 * The part of libhydmi's C ABI (virtual DCUs) that vgpu calls, written by us from the facts in the field notes.
 *
 * The library forks a shell at its first call, needs /etc/passwd and talks to a daemon: it is called in a process of
 * its own. Functions are typedefs, never declarations: dmi/sys.rs looks each one up by the typedef's name less the
 * suffix "_fn". `cargo xtask bindings` turns this file into src/dmi/bindings.rs.
 */
#ifndef VGPU_DMI_H
#define VGPU_DMI_H

/* The widths of the C types are those of 64-bit Linux; no header of a system is needed. */

/* Leaves a quota as it is in dmiUpdateSingleVDevice. */
#define VGPU_DMI_KEEP (-1)

typedef int dmiStatus;

typedef struct {
    char name[256];
    int compute_unit_count;
    unsigned long global_mem_size;
    unsigned long usage_mem_size;
    unsigned long container_id;
    int device_id;
} dmiDeviceInfo;

typedef dmiStatus dmiGetDeviceCount_fn(int *count);
typedef dmiStatus dmiGetDeviceInfo_fn(int device_id, dmiDeviceInfo *info);
typedef dmiStatus dmiGetMaxVDeviceCount_fn(int *count);
typedef dmiStatus dmiGetVDeviceCount_fn(int *count);
typedef dmiStatus dmiGetVDeviceInfo_fn(int vdevice_id, dmiDeviceInfo *info);
typedef dmiStatus dmiGetDeviceRemainingInfo_fn(int device_id, unsigned long *cus, unsigned long *memories);
typedef dmiStatus dmiCreateVDevices_fn(int device_id, int count, int *cus, int *mem_mib);
typedef dmiStatus dmiDestroySingleVDevice_fn(int vdevice_id);
typedef dmiStatus dmiUpdateSingleVDevice_fn(int vdevice_id, int cus, int mem_mib);
typedef dmiStatus dmiGetVDevBusyPercent_fn(int vdevice_id, int *percent);

#endif
