import { GUEST_CHANNEL } from "./policy.ts";

/** Name of the harness in the working folder. */
export const PYTHON_HARNESS_FILE = "_harness.py";
export const PYTHON_LISTER_FILE = "_list_tests.py";

/** Reads test names from the source, without running any of it: `[{name, many}]` as JSON. */
export const PYTHON_LISTER = `
import ast, json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    tree = ast.parse(file.read())
framework = sys.argv[2]
classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
def base_names(node):
    return [ast.unparse(base).split(".")[-1] for base in node.bases]
def is_case(node, seen=()):
    names = base_names(node)
    if any(name.endswith("TestCase") for name in names):
        return True
    return any(n in classes and n not in seen and is_case(classes[n], (*seen, n)) for n in names)
def methods(node, seen=()):
    found = {}
    for name in base_names(node):
        if name in classes and name not in seen:
            found.update(methods(classes[name], (*seen, name)))
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and item.name.startswith("test"):
            found[item.name] = is_many(item)
    return found
def is_many(item):
    return any("parametrize" in ast.unparse(decorator) for decorator in item.decorator_list)
tests = []
for node in tree.body:
    if isinstance(node, ast.ClassDef):
        if is_case(node) or (framework == "pytest" and node.name.startswith("Test")):
            many = is_many(node)
            tests += [{"name": f"{node.name}.{n}", "many": m or many} for n, m in methods(node).items()]
    elif framework == "pytest" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if node.name.startswith("test"):
            tests.append({"name": node.name, "many": is_many(node)})
print(json.dumps(tests))
`;

/**
 * Runs tests in the guest's own process and reports each over the channel.
 *
 * What the runner is made of is remembered before any guest code runs and compared around every
 * test; a difference is reported as tampering. The nonce is read from the channel and kept in a
 * local variable only. Code that searches this process's memory can still find it: that is what
 * the verdict's name, in_process, says.
 */
export const PYTHON_HARNESS = `
import builtins, importlib, json, os, sys, traceback, types, unittest, unittest.case
def main():
    write, dumps, exit_now, text = os.write, json.dumps, os._exit, str
    framework, module_name = sys.argv[1], sys.argv[2]
    nonce = b""
    while not nonce.endswith(b"\\n"):
        nonce += os.read(${GUEST_CHANNEL}, 1)
    nonce = nonce.strip()
    def report(name, outcome, message=""):
        data = nonce + b" " + dumps([text(name), outcome, text(message)[-2000:]]).encode() + b"\\n"
        while data:
            data = data[write(${GUEST_CHANNEL}, data):]
    owners = [builtins, unittest.TestCase, unittest.TestResult, unittest.TestSuite, unittest.case, os, json]
    if framework == "pytest":
        import pytest, _pytest.runner, _pytest.python, _pytest.reports, _pytest.assertion.rewrite
        import pluggy._callers, pluggy._hooks, pluggy._manager
        owners += [_pytest.runner, _pytest.python, _pytest.reports, _pytest.assertion.rewrite]
        owners += [pluggy._callers, pluggy._hooks.HookCaller, pluggy._manager.PluginManager]
        owners += [_pytest.python.Function, _pytest.reports.TestReport, _pytest.runner.CallInfo]
    volatile = {"_", "__warningregistry__", "_classSetupFailed", "_class_cleanups"}
    get_vars, code_of, is_function = vars, lambda f: f.__code__, types.FunctionType
    before = []
    for owner in owners:
        for key, value in list(get_vars(owner).items()):
            if key not in volatile:
                before.append((owner, key, value, value.__code__ if type(value) is is_function else None))
    closed = [unittest.TestCase, unittest.TestResult, unittest.TestSuite]
    counts = [(owner, len(get_vars(owner))) for owner in closed]
    def tampered():
        for owner, key, value, code in before:
            if get_vars(owner).get(key, before) is not value:
                return f"{getattr(owner, '__name__', owner)}.{key} was replaced"
            if code is not None and value.__code__ is not code:
                return f"the code of {getattr(owner, '__name__', owner)}.{key} was replaced"
        for owner, count in counts:
            if len([k for k in get_vars(owner) if k not in volatile]) > count:
                return f"{owner.__name__} was extended"
        return None
    sys.path.insert(0, os.getcwd())
    sys.argv = [module_name]
    if framework == "pytest":
        run_pytest(report, tampered, module_name)
    else:
        run_unittest(report, tampered, module_name)
    report("", "done")
    sys.stdout.flush()
    exit_now(0)

def run_unittest(report, tampered, module_name):
    run, load = unittest.TestCase.run, unittest.TestLoader()
    class Result(unittest.TestResult):
        pass
    try:
        module = importlib.import_module(module_name)
        suite = load.loadTestsFromModule(module)
    except BaseException:
        report("", "load_error", traceback.format_exc(limit=-3))
        return
    def flat(item):
        return [test for part in item for test in flat(part)] if isinstance(item, unittest.TestSuite) else [item]
    tests = flat(suite)
    done = set()
    for test in tests:
        name = f"{type(test).__name__}.{test._testMethodName}"
        what = tampered()
        if what:
            report(name, "tampered", what)
            continue
        for hook in ("setUpClass",):
            if type(test) not in done:
                done.add(type(test))
                try:
                    getattr(type(test), hook)()
                except BaseException:
                    report(name, "error", traceback.format_exc(limit=-3))
        result = Result()
        run(test, result)
        what = tampered()
        problems = result.failures + result.errors
        if what:
            report(name, "tampered", what)
        elif problems:
            report(name, "failed" if result.failures else "error", problems[0][1])
        elif result.skipped:
            report(name, "skipped", result.skipped[0][1])
        elif result.expectedFailures or result.unexpectedSuccesses:
            report(name, "failed", "expected to fail")
        else:
            report(name, "passed" if result.testsRun == 1 else "error")
    for cls in done:
        try:
            cls.tearDownClass()
        except BaseException:
            report("", "load_error", traceback.format_exc(limit=-3))

def run_pytest(report, tampered, module_name):
    import pytest
    class Plugin:
        def __init__(self):
            self.failed = {}
        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report):
            outcomes.append(report)
    outcomes = []
    def flush():
        state = {}
        for item in outcomes:
            name = item.nodeid.split("::", 1)[-1].replace("::", ".").split("[")[0]
            known = state.setdefault(item.nodeid, [name, "passed", "", False])
            if item.outcome == "failed":
                known[1:3] = ["failed" if item.when == "call" else "error", str(item.longrepr)]
            elif item.outcome == "skipped":
                known[1] = "skipped"
            elif item.when == "call":
                known[3] = True
        what = tampered()
        for name, outcome, message, called in state.values():
            if what:
                report(name, "tampered", what)
            else:
                report(name, outcome if called or outcome != "passed" else "error", message)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", os.getcwd(), module_name + ".py"]
    code = pytest.main(options, plugins=[Plugin()])
    flush()
    if int(code) not in (0, 1):
        report("", "load_error", f"pytest ended with {int(code)}")
main()
`;
