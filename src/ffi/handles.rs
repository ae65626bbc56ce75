//! What handles stand for, and who keeps it alive.

use std::sync::{Arc, Weak};

use super::args;
use super::guard::{FailValue, boundary, contain};
use super::types::{ExtismCompiledPlugin, ExtismFunction};
use crate::error::{Error, Result};
use crate::plugin::{Compiled, Entered, HeldPlugin, Plugin};
use crate::registry::{Held, Kind, Misuse, Recent, Registry, with_kind};
use crate::sync::{HeldIn, Mutex};
use crate::thread;
use crate::wasm::{Offer, UserFunction};

static PLUGINS: Registry<Plugin> = Registry::new(Kind::Plugin);
static COMPILED: Registry<Compiled> = Registry::new(Kind::CompiledPlugin);
static FUNCTIONS: Registry<Function> = Registry::new(Kind::Function);

thread_local! {
    /// Most threads call the same plug-in again and again.
    static RECENT: Recent<Plugin> = const { Recent::new(|raw, object| thread::current(|thread| thread.recent.set((raw, object.cast())))) };
}

/// The number that the caller holds.
pub(super) fn number<T>(handle: *const T) -> u64 {
    handle.addr() as u64
}

/// The handle that the caller gets.
pub(super) fn pointer<T>(raw: u64) -> *mut T {
    std::ptr::without_provenance_mut(raw as usize)
}

/// All registries and the locks of what is in them, held across a fork.
pub(super) struct HeldHandles {
    // The objects go first: the registries still have them, so none is dropped here.
    _in_plugins: Vec<HeldPlugin>,
    _in_functions: Vec<HeldIn<FunctionState>>,
    plugins: Held<Plugin>,
    _compiled: Held<Compiled>,
    _functions: Held<Function>,
}

/// Keeps the registries as they are.
pub(super) fn hold() -> HeldHandles {
    let functions = FUNCTIONS.hold();
    let compiled = COMPILED.hold();
    let plugins = PLUGINS.hold();
    HeldHandles {
        _in_plugins: plugins.objects().map(Plugin::hold).collect(),
        _in_functions: functions.objects().map(|function| HeldIn::new(function, |function| &function.0)).collect(),
        plugins,
        _compiled: compiled,
        _functions: functions,
    }
}

impl HeldHandles {
    /// All plug-ins, also freed ones that a call still runs in.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.plugins.objects().cloned().collect()
    }
}

/// Makes a plug-in and gives it a handle.
pub(super) fn add_plugin(compiled: &Compiled) -> Result<u64> {
    PLUGINS.insert_with(|raw| Arc::new(Plugin::new(compiled, raw, with_kind(raw, Kind::CurrentPlugin), retire)))
}

/// Takes a freed plug-in out once nobody is inside.
fn retire(raw: u64) {
    drop(PLUGINS.remove(raw));
}

/// The plug-in behind a plug-in handle that was not freed.
pub(super) fn plugin<T>(handle: *const T) -> Result<Arc<Plugin>> {
    let raw = number(handle);
    find(raw).filter(|plugin| !plugin.is_freed()).ok_or_else(|| Misuse::of(raw, Kind::Plugin).into())
}

/// The plug-in behind a handle of this kind, also if it was freed while a call still runs in it.
pub(super) fn plugin_in_use<T>(handle: *const T, kind: Kind) -> Result<Arc<Plugin>> {
    let raw = number(handle);
    let found = match crate::registry::kind_of(raw) {
        Some(found) if found == kind => find(with_kind(raw, Kind::Plugin)),
        _ => None,
    };
    found.ok_or_else(|| Misuse::of(raw, kind).into())
}

fn find(raw: u64) -> Option<Arc<Plugin>> {
    RECENT
        .try_with(|recent| recent.get(raw, &PLUGINS, |plugin| !plugin.is_retired()))
        .unwrap_or_else(|_| PLUGINS.get(raw))
}

/// Enters the plug-in behind this handle, if it is the one that this thread used last and nobody is inside.
#[inline]
pub(super) fn enter_again<T>(handle: *const T) -> Option<Entered<'static>> {
    let (raw, plugin) = thread::current(|thread| thread.recent.get());
    if raw != number(handle) || plugin.is_null() {
        return None;
    }
    // SAFETY: `RECENT` keeps the memory of the plug-in that it told of, and takes the pointer back before it lets go of
    // it. A plug-in is dropped only after it was retired, which the turn shows.
    unsafe { Plugin::enter_if_there(plugin.cast()) }
}

/// Runs an operation on a plug-in that can be refused: this thread's `extism_plugin_error` tells why.
pub(super) fn operate<T: FailValue, H>(handle: *const H, operation: impl FnOnce(&Plugin) -> Result<T>) -> T {
    boundary(|| self::operation(handle, operation))
}

/// The same, inside of the boundary.
pub(super) fn operation<T, H>(handle: *const H, operation: impl FnOnce(&Plugin) -> Result<T>) -> Result<T> {
    let plugin = plugin(handle)?;
    plugin.begin_operation();
    contain(|| operation(&plugin)).inspect_err(|error| plugin.refuse(error))
}

/// Gives a compiled plug-in a handle.
pub(super) fn add_compiled(compiled: Compiled) -> Result<u64> {
    COMPILED.insert_with(|_| Arc::new(compiled))
}

/// The compiled plug-in behind a handle.
pub(super) fn compiled(handle: *const ExtismCompiledPlugin) -> Result<Arc<Compiled>> {
    let raw = number(handle);
    COMPILED.get(raw).ok_or_else(|| Misuse::of(raw, Kind::CompiledPlugin).into())
}

/// Ends the handle; what was made of the compiled plug-in keeps what it needs.
pub(super) fn free_compiled(handle: *mut ExtismCompiledPlugin) -> Result<()> {
    let raw = number(handle);
    COMPILED.remove(raw).map(drop).ok_or_else(|| Misuse::of(raw, Kind::CompiledPlugin).into())
}

/// What a function handle stands for.
pub(super) struct Function(Mutex<FunctionState>);

struct FunctionState {
    namespace: String,
    function: Owner,
}

/// Who keeps the function, and with it the user's data.
enum Owner {
    /// The handle: no plug-in was made with it yet.
    Handle(Arc<UserFunction>),
    /// The plug-ins and compiled plug-ins that were made with it.
    Users(Weak<UserFunction>),
}

const DEFAULT_NAMESPACE: &str = "extism:host/user";

/// Gives a function a handle.
pub(super) fn add_function(function: UserFunction) -> Result<u64> {
    let state = FunctionState { namespace: DEFAULT_NAMESPACE.to_owned(), function: Owner::Handle(Arc::new(function)) };
    FUNCTIONS.insert_with(|_| Arc::new(Function(Mutex::new(state))))
}

/// The function behind a handle.
pub(super) fn function(handle: *const ExtismFunction) -> Result<Arc<Function>> {
    let raw = number(handle);
    FUNCTIONS.get(raw).ok_or_else(|| Misuse::of(raw, Kind::Function).into())
}

/// Ends the handle. The function goes with it if no plug-in was made with it.
pub(super) fn free_function(handle: *mut ExtismFunction) -> Result<()> {
    let raw = number(handle);
    FUNCTIONS.remove(raw).map(drop).ok_or_else(|| Misuse::of(raw, Kind::Function).into())
}

impl Function {
    /// Where plug-ins that are made from now on find the function.
    pub fn set_namespace(&self, namespace: &str) -> Result<()> {
        let mut state = self.0.lock();
        if let Owner::Users(users) = &state.function
            && users.strong_count() == 0
        {
            return Err(spent());
        }
        state.namespace = namespace.to_owned();
        Ok(())
    }

    fn offer(&self) -> Result<Offer> {
        let state = self.0.lock();
        let function = match &state.function {
            Owner::Handle(function) => Arc::clone(function),
            Owner::Users(users) => users.upgrade().ok_or_else(spent)?,
        };
        Ok(Offer { namespace: state.namespace.clone(), function })
    }

    fn give_to_users(&self) {
        let mut state = self.0.lock();
        let given = match &state.function {
            Owner::Handle(function) => Owner::Users(Arc::downgrade(function)),
            Owner::Users(_) => return,
        };
        let before = std::mem::replace(&mut state.function, given);
        drop(state);
        // Could be the last share, if the plug-in is gone already: its finaliser must not run under our lock.
        drop(before);
    }
}

fn spent() -> Error {
    Error::new(
        "this ExtismFunction is spent: the last plug-in that used it was freed, and its user data with it; make a new \
         function",
    )
}

/// The functions that a caller hands to a plug-in. Nothing is taken until [`Functions::taken`].
pub(super) struct Functions(Vec<Arc<Function>>);

impl Functions {
    /// Reads the array: NULL or `count` handles.
    ///
    /// # Safety
    ///
    /// `functions` is NULL, or `count` pointers can be read from it.
    pub unsafe fn read(functions: *const *const ExtismFunction, count: u64) -> Result<Self> {
        if functions.is_null() {
            return Ok(Self(Vec::new()));
        }
        // SAFETY: the caller's promise, handed through.
        let handles = unsafe { args::array("`functions`", functions, count)? };
        let found = handles.iter().enumerate().map(|(index, handle)| {
            function(*handle).map_err(|error| error.context(format_args!("functions[{index}]")))
        });
        Ok(Self(found.collect::<Result<_>>()?))
    }

    /// What is offered to the guest.
    pub fn offers(&self) -> Result<Vec<Offer>> {
        self.0.iter().map(|function| function.offer()).collect()
    }

    /// Creation succeeded: from now on the functions live as long as what was made with them.
    pub fn taken(self) {
        self.0.iter().for_each(|function| function.give_to_users());
    }
}
